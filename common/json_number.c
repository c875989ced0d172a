/*
 * json_number.c - the numbers of json_span.h: exact integers, and doubles that
 * don't depend on the process's locale.
 *
 * A number's text is first brought into the form digits x 10^exponent, without
 * a decimal point and without needless zeros. From there both kinds are easy:
 * it is a whole number if the exponent is not negative, and strtod() reads it
 * in any locale.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/json_chars.h"
#include "common/json_span.h"
#include "common/macros.h"

/* The point halfway between two doubles has at most 767 significant digits, so
 * of what follows only "is there anything but zero" matters. */
#define DIGITS_MAX    768
#define EXPONENT_MAX  INT64_C(1000000000000000) /* where counting stops */
#define UINT64_DIGITS 20

/* Decimal numbers that a double holds exactly. */
#define EXACT_DIGITS 15
#define EXACT_POWER  22

struct decimal {
	bool negative;
	size_t count;     /* significant digits; 0 for zero */
	int64_t exponent; /* of ten, applied to the digits as an integer */
	char digits[DIGITS_MAX + 1];
};

/* Takes the mantissa's digits in; *endp is where they end. Returns how many
 * places the last stored digit stands left of the units. */
static int64_t read_mantissa(struct decimal *d, const char *p, const char *end,
                             const char **endp)
{
	int64_t places = 0; /* behind the last stored digit */
	bool fraction = false, sticky = false;

	d->count = 0;
	for (; p < end && *p != 'e' && *p != 'E'; p++) {
		if (*p == '.') {
			fraction = true;
			continue;
		}
		d->exponent -= fraction;
		if (*p == '0') {
			places += d->count > 0;
			continue;
		}
		/* Zeros that were only counted so far are significant now. */
		while (places > 0 && !sticky && d->count < DIGITS_MAX) {
			d->digits[d->count++] = '0';
			places--;
		}
		if (d->count < DIGITS_MAX) {
			d->digits[d->count++] = *p;
		} else {
			sticky = true;
			places++;
		}
	}
	if (sticky) {
		d->digits[d->count++] = '1';
		places--;
	}
	*endp = p;
	return places;
}

static int64_t read_exponent(const char *p, const char *end)
{
	bool negative = *p == '-';
	int64_t e = 0;

	if (*p == '-' || *p == '+')
		p++;
	for (; p < end && e < EXPONENT_MAX; p++)
		e = e * 10 + (*p - '0');
	return negative ? -e : e;
}

static bool read_decimal(struct decimal *d, struct json j)
{
	const char *p = j.text.p, *end;
	int64_t places;

	if (j.type != JSON_NUMBER)
		return false;
	end = p + j.text.n;
	d->negative = *p == '-';
	d->exponent = 0;
	places = read_mantissa(d, p + d->negative, end, &p);
	d->exponent += places;
	if (p < end)
		d->exponent += read_exponent(p + 1, end);
	return true;
}

static bool decimal_to_uint64(const struct decimal *d, uint64_t *out)
{
	uint64_t v = 0;

	if (d->count == 0) {
		*out = 0;
		return true;
	}
	if (d->exponent < 0 || d->exponent > UINT64_DIGITS ||
	    (int64_t)d->count + d->exponent > UINT64_DIGITS)
		return false;
	for (size_t i = 0; i < d->count + (size_t)d->exponent; i++) {
		uint64_t digit =
			i < d->count ? (uint64_t)(d->digits[i] - '0') : 0;

		if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
		    __builtin_add_overflow(v, digit, &v))
			return false;
	}
	*out = v;
	return true;
}

bool json_uint64(struct json j, uint64_t *out)
{
	struct decimal d;

	return read_decimal(&d, j) && (!d.negative || d.count == 0) &&
	       decimal_to_uint64(&d, out);
}

bool json_int64(struct json j, int64_t *out)
{
	struct decimal d;
	uint64_t v;

	if (!read_decimal(&d, j) || !decimal_to_uint64(&d, &v) ||
	    v > (uint64_t)INT64_MAX + d.negative)
		return false;
	*out = d.negative ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}

/* True for the everyday numbers: few digits, small exponent. Both operands are
 * exact then, so that the one rounding of the operation is the right one. */
static bool decimal_to_double_exactly(const struct decimal *d, double *out)
{
	static const double powers[EXACT_POWER + 1] = {
		1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
		1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
		1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
	};
	int64_t v = 0;

	if (d->count > EXACT_DIGITS || d->exponent < -EXACT_POWER ||
	    d->exponent > EXACT_POWER)
		return false;
	for (size_t i = 0; i < d->count; i++)
		v = v * 10 + (d->digits[i] - '0');
	*out = d->exponent < 0 ? (double)v / powers[-d->exponent]
	                       : (double)v * powers[d->exponent];
	return true;
}

bool json_double(struct json j, double *out)
{
	char text[DIGITS_MAX + 32]; /* digits, 'e', a 64-bit number, NUL */
	struct decimal d;
	double v = 0;
	int n;

	if (!read_decimal(&d, j))
		return false;
	if (d.count > 0 && !decimal_to_double_exactly(&d, &v)) {
		n = snprintf(text, sizeof(text), "%.*se%" PRId64, (int)d.count,
		             d.digits, d.exponent);
		if (n < 0 || (size_t)n >= sizeof(text))
			return false;
		v = strtod(text, NULL);
	}
	if (!isfinite(v))
		return false;
	*out = d.negative ? -v : v;
	return true;
}
