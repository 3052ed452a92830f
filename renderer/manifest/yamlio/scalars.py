"""What Kubernetes takes a YAML scalar for: its type, its JSON value, and its text as a key.

The rules are those of go.yaml.in/yaml/v2 (`resolve`), of sigs.k8s.io/yaml (`convertToJSONableObject`) and
of Go's encoding/json, in the order in which kubectl and the API server run them.
"""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal
from typing import Final, TypeAlias

from renderer.manifest.jsontypes import Json

#: A scalar as the YAML library types it, before it becomes JSON.
Scalar: TypeAlias = str | int | float | bool | None

#: Unquoted scalars that are a value of their own.
WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
#: An unquoted scalar that is none of the words and starts with none of these is a string.
NUMBER_STARTS: Final = frozenset("+-.0123456789")

_INTEGER: Final = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
#: A number that starts with its point is parsed by the rules of Go's own literals.
_FRACTION: Final = re.compile(r"\.[0-9](?:_?[0-9])*(?:[eE][-+]?[0-9](?:_?[0-9])*)?")
#: After the prefix 0b the library parses once more, and then takes a sign.
_SIGNED_BINARY: Final = re.compile(r"0b([-+][01]+)")

_INT64: Final = range(-(2**63), 2**63)
_UINT64: Final = range(2**64)
#: From here on encoding/json writes an exponent, so that the number is read as a float again.
_EXPONENT_FROM: Final = 10**21
#: Keys have float32's precision; between these, six digits always survive it.
_KEY_FLOATS: Final = (1e-37, 1e38)


class ScalarError(ValueError):
    """A scalar for which Kubernetes gives an error, or a number that it would change without a word."""


def plain(text: str) -> Scalar:
    """What an unquoted scalar without a tag stands for."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in NUMBER_STARTS:
        return text
    if text[0] == ".":
        return _float(text, otherwise=text) if _FRACTION.fullmatch(text) else text
    return _number(text)


def tagged(tag: str, text: str) -> Scalar:
    """What a scalar with a tag stands for, quoted or not; raises ScalarError when the two contradict."""
    kind = tag.removeprefix("tag:yaml.org,2002:")
    if kind == tag or kind not in {"bool", "int", "float", "null", "binary", "timestamp"}:
        return text
    if kind == "binary":
        return _binary(text)
    value = plain(text)
    if kind == "float" and type(value) is int and value in _INT64:
        return float(value)
    found = {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")
    if found != kind:
        raise ScalarError(f"{text!r} is not a value for the tag !!{kind}")
    return value


def to_json(value: Scalar) -> Json:
    """The value in JSON, as it is read back: 1.0 is 1 there. Raises ScalarError for what JSON can't hold."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ScalarError("infinity and not-a-number can't be held; quote it if it is meant as text")
        return _json_number(value)
    if type(value) is int and value not in _INT64:
        try:
            number = float(value)
        except OverflowError:
            raise ScalarError("the integer is too large for a number") from None
        return _json_number(_exact(number, str(value)))
    return value


def to_key(value: Scalar) -> str:
    """The text that a mapping's key becomes; raises ScalarError where Kubernetes refuses or rounds it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in _INT64:
        return str(value)
    if isinstance(value, float):
        low, high = _KEY_FLOATS
        text = f"{value:.6g}"
        if float(text) == value and (not value or low < abs(value) < high):
            return text
    raise ScalarError("this can't be a key; quote it if it is meant as text")


def json_integer(digits: str) -> int | float:
    """An integer of a JSON text; raises ScalarError when it doesn't fit and would be changed."""
    # Python refuses to convert very long ones.
    if len(digits) <= 20 and int(digits) in _INT64:
        return int(digits)
    number = float(digits)
    if math.isinf(number):
        raise ScalarError("the integer is too large for a number")
    return _json_number(_exact(number, digits))


def looks_like_number(text: str) -> bool:
    """Whether some reader, by the rules of YAML 1.1 or 1.2, takes the unquoted text for a number."""
    digits = text.replace("_", "")
    return bool(_INTEGER.fullmatch(digits) or _FLOAT.fullmatch(digits) or _SIGNED_BINARY.fullmatch(digits))


def _number(text: str) -> Scalar:
    """An integer of up to 64 bits, else a float; else (dates, times, versions, addresses) the text."""
    digits = text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        sign, *by_base = match.groups()
        base, body = next((base, body) for base, body in zip((16, 2, 8, 10), by_base, strict=True) if body)
        # Python refuses to convert very long decimals; what is longer than 20 digits is a float anyway.
        number = int(sign + body, base) if base != 10 or len(body) <= 20 else 10**20
        if number in _INT64 or (number in _UINT64 and not sign):
            return number
    if _DECIMAL.fullmatch(digits):
        number_or_text = _float(digits, otherwise=text)
        return number_or_text if isinstance(number_or_text, str) else _exact(number_or_text, digits)
    if _FLOAT.fullmatch(digits):
        return _float(digits, otherwise=text)
    if match := _SIGNED_BINARY.fullmatch(digits):
        number = int(match[1], 2)
        return number if number in _INT64 else text
    return text


def _float(digits: str, *, otherwise: str) -> float | str:
    """The float, or where it is out of range the string that Kubernetes then takes it for."""
    number = float(digits)
    return number if math.isfinite(number) else otherwise


def _exact(number: float, digits: str) -> float:
    """The float that an integer beyond 64 bits becomes; raises ScalarError where that changes its value."""
    as_json = _json_number(number)
    if Decimal(repr(as_json)) != Decimal(digits):
        raise ScalarError(f"Kubernetes would change the integer to {as_json}; quote it if it is meant as text")
    return number


def _json_number(number: float) -> int | float:
    """A float as encoding/json writes it (its shortest digits) and a JSON reader reads it again."""
    if not number.is_integer() or abs(number) >= _EXPONENT_FROM:
        return number
    return int(Decimal(repr(number)))


def _binary(text: str) -> str:
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode()
    except ValueError:
        raise ScalarError("this is not the base64 form of a UTF-8 text, as the tag !!binary says") from None
