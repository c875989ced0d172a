/*
 * credentials.h - what ComfyUI, or the proxy before it, wants to be shown:
 * certificate authorities to trust, a client certificate with its key, extra
 * header lines, a bearer token. All of it by files, none of it ever in an
 * argument, the log, a status or an error text; errors name the file.
 *
 * Read once, by the process that may open files, and handed on as bytes to
 * those that may not (credentials_pack). Wiped when freed.
 */
#ifndef COMMON_CREDENTIALS_H
#define COMMON_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/span.h"

#define CREDENTIALS_FILE_MAX    (4u << 20) /* bytes of a file of certificates */
#define CREDENTIALS_SECRET_MAX  65536      /* bytes of any other file */
#define CREDENTIALS_HEADERS_MAX 16         /* header lines, token included */
#define CREDENTIALS_HEADER_MAX  4096       /* bytes of a header's value */
/* Bytes of all header lines: servers take 8 to 16 KiB of headers in all. */
#define CREDENTIALS_HEADERS_BYTES 8192
/* Bytes of all, packed. */
#define CREDENTIALS_PACKED_MAX (16u << 20)

/* Paths; NULL or "" for none. */
struct credentials_files {
	const char *ca_file;
	const char *client_cert, *client_key; /* PEM; the key may be in the
	                                         certificate's file */
	const char *token_file;  /* one line: Authorization: Bearer ... */
	const char *header_file; /* lines "Name: value"; # comments */
	/* Trust the system's authorities where ca_file names none: needed by
	 * those who can't read that file when they connect. */
	bool with_system_ca;
};

struct credentials_header {
	char *name, *value;
};

struct credentials {
	struct buf ca, cert, key; /* PEM; empty: none */
	struct credentials_header headers[CREDENTIALS_HEADERS_MAX];
	size_t header_count;
	size_t header_bytes;
};

/* Nothing; so is {0}-initialised storage after this. */
void credentials_init(struct credentials *c);
/* Wipes and frees; safe twice. */
void credentials_deinit(struct credentials *c);

/* Reads the files. Those with secrets must be the reader's own or root's, and
 * closed to others (mode 0600 or 0400; root's may be open to a group):
 * ERR_DENIED says which one is not, and what to do. Contents of a wrong form:
 * ERR_CONFIG. */
int credentials_load(struct credentials *c, const struct credentials_files *f,
                     struct error *err);

/* Appends everything as bytes; 0 or what buf_append says. */
int credentials_pack(const struct credentials *c, struct buf *out);
/* Takes them over from bytes. 0, -EPROTO, -ENOMEM. */
int credentials_unpack(struct credentials *c, struct span packed);

#endif
