"""Random answers to random schemas: each that ends is valid, as jsonschema judges, and nearly all end in time."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest

from kit.small_processor import small_tokenizer
from qwen2_audio.engine.structured.grammar import Grammars
from qwen2_audio.errors import ConfigError

pytest.importorskip("llguidance")
jsonschema = pytest.importorskip("jsonschema")

BUDGET = 1200  # bytes of an answer
PATTERNS = ("^[a-c]{2,5}$", "^(ab|ba)+$", "x", "^[0-9]{3}-[0-9]{2}$", "^\\S*$", "[äé]{1,3}")
FORMATS = ("date", "uuid", "ipv4")
VALUES: tuple[Any, ...] = (None, True, 0, -7, 2.5, "", 'ab"c\\', "ö\n\t\u2028", [1, "x"], {"k": []}, "<|im_end|>")


class Schemas:
    """Makes schemas. They may refer to definitions, also to those that they are in."""

    def __init__(self, draws: random.Random) -> None:
        self.draws = draws
        self.definitions: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        for number in range(self.draws.choice((0, 0, 1, 2))):
            self.definitions[f"d{number}"] = self.object(2)
        schema = self.any(4)
        return {**schema, "$defs": self.definitions} if self.definitions else schema

    def any(self, depth: int) -> dict[str, Any]:
        makers = [self.integer, self.number, self.string, self.values, self.plain]
        if depth > 0:
            makers += [self.object, self.object, self.array, self.either, self.both]
            makers += [self.reference] if self.definitions else []
        return self.draws.choice(makers)(depth - 1)

    def bounds(self, low: str, high: str, least: float, most: float, whole: bool) -> dict[str, Any]:
        ends = sorted(self.draws.uniform(least, most) for _ in range(2))
        first, second = (round(end) if whole else round(end, 2) for end in ends)
        found = {low: first, high: max(second, first)}
        return {key: value for key, value in found.items() if self.draws.random() < 0.6}

    def integer(self, depth: int) -> dict[str, Any]:
        schema = {"type": "integer", **self.bounds("minimum", "maximum", -1000, 1000, True)}
        return schema | ({"multipleOf": 3} if len(schema) == 1 and self.draws.random() < 0.3 else {})

    def number(self, depth: int) -> dict[str, Any]:
        return {"type": "number", **self.bounds("minimum", "maximum", -10, 10, False)}

    def string(self, depth: int) -> dict[str, Any]:
        kind = self.draws.random()
        if kind < 0.3:
            return {"type": "string", "pattern": self.draws.choice(PATTERNS)}
        if kind < 0.45:
            return {"type": "string", "format": self.draws.choice(FORMATS)}
        return {"type": "string", **self.bounds("minLength", "maxLength", 0, 12, True)}

    def values(self, depth: int) -> dict[str, Any]:
        if self.draws.random() < 0.3:
            return {"const": self.draws.choice(VALUES)}
        return {"enum": self.draws.sample(VALUES, self.draws.randint(1, 4))}

    def plain(self, depth: int) -> dict[str, Any]:
        names = ["null", "boolean", "integer", "string"]
        return {"type": self.draws.choice([*names, self.draws.sample(names, 2)])}

    def object(self, depth: int) -> dict[str, Any]:
        names = self.draws.sample(["a", "b", "c d", "ü", 'e"f', "a/b"], self.draws.randint(0, 4))
        schema: dict[str, Any] = {"type": "object", "properties": {name: self.any(depth) for name in names}}
        schema["required"] = [name for name in names if self.draws.random() < 0.6]
        kind = self.draws.random()
        if kind < 0.6:
            schema["additionalProperties"] = False
        elif kind < 0.7:
            schema["additionalProperties"] = self.any(0)
        elif kind < 0.8:
            schema |= {"patternProperties": {"^p[0-9]$": self.any(0)}, "additionalProperties": False}
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", **self.bounds("minItems", "maxItems", 0, 4, True)}
        if self.draws.random() < 0.3:
            schema["prefixItems"] = [self.any(depth) for _ in range(self.draws.randint(1, 2))]
        return {**schema, "items": self.any(depth)} if self.draws.random() < 0.8 else schema

    def either(self, depth: int) -> dict[str, Any]:
        kind = self.draws.choice(("anyOf", "anyOf", "oneOf"))
        return {kind: [self.any(depth) for _ in range(self.draws.randint(1, 3))]}

    def both(self, depth: int) -> dict[str, Any]:
        return {"allOf": [self.any(depth) for _ in range(self.draws.randint(1, 2))]}

    def reference(self, depth: int) -> dict[str, Any]:
        return {"$ref": f"#/$defs/{self.draws.choice(sorted(self.definitions))}"}


def answer(matcher, tokenizer, ends, draws) -> str | None:
    """A random one, drawn so that it comes to an end; None where it does not within BUDGET."""
    closing = [*ends, *tokenizer.encode('"}]')]
    said: list[int] = []
    for _ in range(BUDGET):
        mask = matcher.allowed()
        allowed = np.flatnonzero(mask).tolist()
        near = [token for token in closing if mask[token]]
        token = draws.choice(near if near and draws.random() < 0.5 else allowed)
        matcher.advance(token)
        if matcher.finished:
            return tokenizer.decode(said)
        said.append(token)
    return None


def check(numbers: range) -> None:
    tokenizer = small_tokenizer()
    ends = frozenset(tokenizer.convert_tokens_to_ids(["<|im_end|>"]))
    grammars, refused, unfinished = Grammars(tokenizer, len(tokenizer)), list[str](), 0
    for number in numbers:
        draws = random.Random(number)
        schema = Schemas(draws).whole()
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
        try:
            matcher = grammars.matcher(("json_schema", json.dumps(schema)), ends)
            text = answer(matcher, tokenizer, ends, draws)
        except ConfigError as error:
            refused.append(str(error))
            continue
        if text is None:
            unfinished += 1
            continue
        problem = next(validator.iter_errors(json.loads(text)), None)
        assert problem is None, f"schema {number}: {json.dumps(schema)} took {text}: {problem.message}"
    taken = len(numbers) - len(refused)
    assert taken > 0.6 * len(numbers), refused
    assert unfinished <= 0.1 * taken
    assert all(re.fullmatch(r"json_schema cannot be honoured: .*\w{4}.*\.", error) for error in refused), refused


def test_sixty_schemas():
    check(range(60))


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_ten_thousand_schemas():
    check(range(10_000))
