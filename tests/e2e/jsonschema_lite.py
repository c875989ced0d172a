"""A validator for the part of JSON Schema that MCP's schemas use, draft-07 and
2020-12: $ref within the document, type, properties, required,
additionalProperties, items, anyOf, oneOf, allOf, enum, const and bounds.

Raises on a keyword that it does not know, so that nothing passes unseen.
"""

IGNORED = {"$schema", "$id", "$defs", "definitions", "description", "title",
           "default", "format", "examples", "deprecated", "$comment"}


class Invalid(Exception):
    pass


def is_integer(value):
    return (isinstance(value, int) and not isinstance(value, bool) or
            isinstance(value, float) and value.is_integer())


TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": is_integer,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}


def same(a, b):
    """Equal as JSON: true is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


class Validator:
    def __init__(self, document):
        self.document = document

    def resolve(self, ref):
        if not ref.startswith("#/"):
            raise ValueError("a reference out of the document: " + ref)
        found = self.document
        for part in ref[2:].split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return found

    def check(self, value, schema, where="$"):
        """Raises Invalid, naming the place, unless value fits."""
        if schema is True:
            return
        if schema is False:
            raise Invalid(where + ": nothing is allowed here")
        for keyword, wanted in schema.items():
            if keyword in IGNORED:
                continue
            method = getattr(self, "on_" + keyword.replace("$", ""), None)
            if method is None:
                raise ValueError("unknown keyword " + keyword)
            method(value, wanted, where, schema)

    def fits(self, value, schema):
        try:
            self.check(value, schema)
            return True
        except Invalid:
            return False

    def on_ref(self, value, ref, where, schema):
        self.check(value, self.resolve(ref), where)

    def on_type(self, value, names, where, schema):
        names = names if isinstance(names, list) else [names]
        if not any(TYPES[name](value) for name in names):
            raise Invalid("%s: %.200r is no %s" % (where, value, " or ".join(names)))

    def on_enum(self, value, allowed, where, schema):
        if not any(same(value, a) for a in allowed):
            raise Invalid("%s: %.200r is none of %r" % (where, value, allowed))

    def on_const(self, value, wanted, where, schema):
        if not same(value, wanted):
            raise Invalid("%s: %.200r is not %r" % (where, value, wanted))

    def on_properties(self, value, properties, where, schema):
        if isinstance(value, dict):
            for name, sub in properties.items():
                if name in value:
                    self.check(value[name], sub, where + "." + name)

    def on_required(self, value, names, where, schema):
        if isinstance(value, dict):
            for name in names:
                if name not in value:
                    raise Invalid("%s: %s is missing" % (where, name))

    def on_additionalProperties(self, value, sub, where, schema):
        if isinstance(value, dict):
            for name in value:
                if name not in schema.get("properties", {}):
                    self.check(value[name], sub, where + "." + name)

    def on_items(self, value, sub, where, schema):
        if isinstance(value, list):
            for i, element in enumerate(value):
                self.check(element, sub, "%s[%d]" % (where, i))

    def on_minItems(self, value, bound, where, schema):
        if isinstance(value, list) and len(value) < bound:
            raise Invalid("%s: fewer than %d elements" % (where, bound))

    def on_maxItems(self, value, bound, where, schema):
        if isinstance(value, list) and len(value) > bound:
            raise Invalid("%s: more than %d elements" % (where, bound))

    def on_minimum(self, value, bound, where, schema):
        if TYPES["number"](value) and value < bound:
            raise Invalid("%s: %r is below %r" % (where, value, bound))

    def on_maximum(self, value, bound, where, schema):
        if TYPES["number"](value) and value > bound:
            raise Invalid("%s: %r is above %r" % (where, value, bound))

    def on_minLength(self, value, bound, where, schema):
        if isinstance(value, str) and len(value) < bound:
            raise Invalid("%s: shorter than %d" % (where, bound))

    def on_maxLength(self, value, bound, where, schema):
        if isinstance(value, str) and len(value) > bound:
            raise Invalid("%s: longer than %d" % (where, bound))

    def on_allOf(self, value, subs, where, schema):
        for sub in subs:
            self.check(value, sub, where)

    def on_anyOf(self, value, subs, where, schema):
        reasons = []
        for sub in subs:
            try:
                self.check(value, sub, where)
                return
            except Invalid as e:
                reasons.append(str(e))
        raise Invalid("%s: fits nothing of anyOf (%s)" % (where, "; ".join(reasons)[:600]))

    def on_oneOf(self, value, subs, where, schema):
        count = sum(self.fits(value, sub) for sub in subs)
        if count != 1:
            raise Invalid("%s: fits %d of oneOf" % (where, count))
