"""Fills the "expected" fields of cases.json with what jinja2 3.1.6 renders: python3 expect.py (needs jinja2)."""
import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
# The tests render at 2024-07-26 12:00 UTC.
environment.globals["strftime_now"] = lambda form: datetime.datetime(2024, 7, 26, 12).strftime(form)

cases = json.loads((HERE / "cases.json").read_text())
for case in cases["cases"]:
    source = case["template"] if "template" in case else (HERE / case["file"]).read_text()
    variables = {**cases["variables"], **cases["conversations"].get(case.get("conversation"), {}), **case.get("variables", {})}
    case.pop("expected", None)
    case.pop("error", None)
    try:
        case["expected"] = environment.from_string(source).render(**variables)
    except Exception as error:
        case["error"] = str(error)
(HERE / "cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
