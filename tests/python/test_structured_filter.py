"""Random structured filters on the real binary: columns and whole traces say the same, in memory and in blocks.

What a filter means is checked with the sources, against a second evaluation; here it is the ways through the engine.
"""

import json
import random

import requests
from conftest import ROOT

SPANS = ROOT / "api" / "fixtures" / "jaeger" / "shop" / "request.json"
RANGE = {"query.startTimeMin": "2023-11-14T00:00:00Z", "query.startTimeMax": "2023-11-15T00:00:00Z"}
FILTERS = 300
SEED = 7

KEYS = ("http.status_code", "host.name", "http.route", "cached", "ratio", "list", "team", "exception.type", "link.kind", "big", "nobody")
VALUES = ("200", "500", "h1", "/", "true", "1.5", "a", "Timeout", "retry", "9007199254740993", "")
LEVELS = ("span", "resource", "scope", "event", "link")
ORDERS = ("gt", "lt", "gte", "lte")
TEXTS = ("GET /", "boom", "frontend", "missing-service-name", "web", "exception", "k=v", "0000000000000001", "")
TIMES = ("2023-11-14T22:13:20Z", "2023-11-14T22:13:21.01Z", "2023-11-14T22:13:22Z")
# Level, name, constants, and whether they have an order.
FIELDS = (
    *((level, name, TEXTS, True) for level, name in (
        ("span", "name"), ("span", "statusMessage"), ("span", "traceState"), ("span", "parentSpanID"), ("resource", "service"),
        ("scope", "name"), ("event", "name"), ("link", "spanID"),
    )),
    *((level, name, TIMES, True) for level, name in (("span", "startTime"), ("span", "endTime"), ("event", "time"))),
    *((level, name, ("1ms", "5ms", "100ms"), True) for level, name in (("span", "duration"), ("event", "timeSinceStart"))),
    ("span", "kind", ("server", "client", "unspecified"), False),
    ("span", "status", ("ok", "error", "unset"), False),
)
# True of every span, and only whole spans tell.
ENDS_LATER = {"op": "not", "args": [{"call": {"op": "lt", "args": [
    {"field": {"name": "endTime", "level": "span"}}, {"field": {"name": "startTime", "level": "span"}}]}}]}


def leaf(rng: random.Random) -> dict:
    if rng.random() < 0.6:
        named = {"attr": {"key": rng.choice(KEYS), **rng.choice([{}, *({"level": level} for level in LEVELS)])}}
        constants, is_ordered, has_texts = VALUES, True, True
    else:
        level, name, constants, is_ordered = rng.choice(FIELDS)
        named, has_texts = {"field": {"name": name, "level": level}}, constants is TEXTS
    op = rng.choice(["eq", "ne", "in", "not_in", "exists", *(ORDERS if is_ordered else ()), *(["regex"] if has_texts else [])])
    match op:
        case "exists":
            return {"op": op, "args": [named]}
        case "in" | "not_in":
            return {"op": op, "args": [named, {"list": {"values": rng.sample(constants, 2)}}]}
        case "regex":
            return {"op": op, "args": [named, {"scalar": {"value": rng.choice(["e", "^G", "t$", "[0-9]+"])}}]}
    return {"op": op, "args": [named, {"scalar": {"value": rng.choice(constants)}}]}


def tree(rng: random.Random, height: int, is_bound: bool = False) -> dict:
    if height == 0 or rng.random() < 0.3:
        return leaf(rng)
    match rng.choice(["and", "or", "not", "not" if is_bound else "some"]):
        case "not":
            return {"op": "not", "args": [{"call": tree(rng, height - 1, is_bound)}]}
        case "some":
            items = {"nested": {"level": rng.choice(["event", "link"])}}
            return {"op": "some", "args": [items, {"call": tree(rng, height - 1, True)}]}
        case op:
            return {"op": op, "args": [{"call": tree(rng, height - 1, is_bound)} for _ in range(rng.randint(1, 3))]}


def test_columns_and_whole_traces_agree_in_memory_and_in_blocks(spoor):
    sent = requests.post(spoor.otlp_http(), data=SPANS.read_bytes(), headers={"Content-Type": "application/json"}, timeout=30)
    assert sent.status_code == 200
    rng = random.Random(SEED)
    filters = [tree(rng, 3) for _ in range(FILTERS)]

    def found(wanted: dict) -> list[str]:
        params = {**RANGE, "query.filter": json.dumps(wanted)}
        answer = spoor.session.get(spoor.jaeger("/api/v3/trace-summaries"), params=params, timeout=30)
        assert answer.status_code == 200, f"{wanted}: {answer.text}"
        return [one["traceId"] for one in answer.json()["summaries"]]

    in_memory = [found(wanted) for wanted in filters]
    assert 0 < sum(map(bool, in_memory)) < FILTERS, "filters that find all or nothing tell nothing"
    spoor.restart()
    for wanted, expected in zip(filters, in_memory):
        assert found(wanted) == expected, wanted
        assert found({"op": "and", "args": [{"call": wanted}, {"call": ENDS_LATER}]}) == expected, wanted
