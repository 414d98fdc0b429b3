"""Says what the alert rules, the dashboard and the operators' page name that a node does not show, one line each.

The argument is a file with what /metrics shows; the working folder is the package's.
"""

import json
import re
import sys
from pathlib import Path

import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

# What Prometheus itself adds to every series, or shows beside them.
ADDED = {"job", "instance", "le", "alertname", "__name__"}
OF_PROMETHEUS = {"up"}
WINDOWS = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


def shown(path):
    """The labels of each sample, and the values of each of them."""
    samples = {name: {} for name in OF_PROMETHEUS}
    families = set()
    with open(path) as file:
        for family in text_string_to_metric_families(file.read()):
            for sample in family.samples:
                families.add(re.sub("_(bucket|sum|count)$", "", sample.name) if family.type == "histogram" else sample.name)
                labels = samples.setdefault(sample.name, {})
                for label, value in sample.labels.items():
                    labels.setdefault(label, set()).add(value)
    return samples, families


def parts(node):
    """An expression's node and all below it."""
    yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "args", "param"):
        below = getattr(node, name, None)
        for one in below if isinstance(below, list) else [below]:
            if isinstance(one, promql_parser.Expr):
                yield from parts(one)


def matches(matcher, values):
    op = str(matcher.op)
    if op.endswith("NotEqual") or op.endswith("NotRe"):
        return True
    if op.endswith("Re"):
        return any(re.fullmatch(matcher.value, value) for value in values)
    return matcher.value in values


def of_expression(text, samples):
    try:
        expression = promql_parser.parse(text)
    except ValueError as error:
        return [f"cannot be parsed: {error}"]
    wrong, known = [], set(ADDED)
    selectors = [node for node in parts(expression) if isinstance(node, promql_parser.VectorSelector)]
    if not selectors:
        wrong.append("names no metric")
    for selector in selectors:
        labels = samples.get(selector.name)
        if labels is None:
            wrong.append(f"no node shows {selector.name}")
            continue
        known |= set(labels)
        for matcher in selector.matchers.matchers:
            if matcher.name in ADDED:
                continue
            if matcher.name not in labels:
                wrong.append(f"{selector.name} has no label {matcher.name}")
            elif not matches(matcher, labels[matcher.name]):
                wrong.append(f"{selector.name} never has {matcher.name} {matcher.value}")
    for node in parts(expression):
        # `by` of an aggregation, `on` of two sides.
        modifier = getattr(node, "modifier", None)
        modifier = getattr(modifier, "matching", None) or modifier
        for label in getattr(modifier, "labels", None) or []:
            if label not in known:
                wrong.append(f"{label} is a label of none of its metrics")
    return wrong


def of_alerts(samples, page):
    with open("deploy/prometheus/alerts.yaml") as file:
        rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    tried = "".join(path.read_text() for path in Path("deploy/prometheus").glob("alerts*.test.yaml"))
    headings = set(re.findall(r"^### (\w+)$", page, re.M))
    names = [rule["alert"] for rule in rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name} is there twice"
    for rule in rules:
        name, annotations = rule["alert"], rule.get("annotations", {})
        for wrong in of_expression(rule["expr"], samples):
            yield f"alert {name}: {wrong}"
        for needed in ("summary", "description", "action"):
            if not annotations.get(needed, "").strip():
                yield f"alert {name} has no {needed}"
        if annotations.get("runbook") != f"docs/operations.md#{name.lower()}" or name not in headings:
            yield f"alert {name} has no place in docs/operations.md"
        if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
            yield f"alert {name} has no severity"
        if not re.search(rf'alertname="{name}"', tried):
            yield f"alert {name} is tried by nothing"
    for heading in headings - set(names):
        yield f"docs/operations.md explains {heading}, which is no alert"


def of_dashboard(samples):
    with open("deploy/grafana/lastpong.json") as file:
        dashboard = json.load(file)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    if variables["datasource"]["type"] != "datasource":
        yield "dashboard: the datasource cannot be chosen"
    asked = re.fullmatch(r"label_values\((\w+), *instance\)", variables["node"]["query"]["query"])
    if not asked or asked[1] not in samples:
        yield "dashboard: nodes are asked for by a metric that no node shows"
    ids, panels = set(), 0
    for panel in dashboard["panels"]:
        title = panel["title"]
        if panel["id"] in ids:
            yield f"dashboard, {title}: its id is another's"
        ids.add(panel["id"])
        if panel["type"] == "row":
            continue
        panels += 1
        if panel["datasource"]["uid"] != "${datasource}":
            yield f"dashboard, {title}: a datasource of its own"
        if not panel.get("description") or not panel["targets"]:
            yield f"dashboard, {title}: no description, or nothing to show"
        for target in panel["targets"]:
            text = target["expr"].replace("$node", ".*")
            for name, window in WINDOWS.items():
                text = text.replace(name, window)
            if "$" in text:
                yield f"dashboard, {title}: an unknown variable in {text}"
            if 'instance=~"$node"' not in target["expr"]:
                yield f"dashboard, {title}: does not heed the chosen nodes"
            for wrong in of_expression(text, samples):
                yield f"dashboard, {title}: {wrong}"
    if panels < 20:
        yield f"dashboard: {panels} panels are found"


def of_page(samples, families, page):
    ours = {name for name in families if re.match("lastpong_|websocket_", name)}
    for name in sorted(ours):
        if f"`{name}`" not in page:
            yield f"docs/operations.md does not explain {name}"
    for name in sorted(set(re.findall(r"\b(?:lastpong|websocket)_\w+", page))):
        if name not in ours and name not in samples:
            yield f"docs/operations.md names {name}, which no node shows"
    for label, name in (("reason", "lastpong_disconnects_total"), ("outcome", "lastpong_handshakes_total")):
        for value in sorted(samples.get(name, {}).get(label, set())):
            if f"| `{value}` |" not in page:
                yield f"docs/operations.md does not explain the {label} {value}"


samples, families = shown(sys.argv[1])
with open("docs/operations.md") as file:
    page = file.read()
for wrong in [*of_alerts(samples, page), *of_dashboard(samples), *of_page(samples, families, page)]:
    print(wrong)
print("checked")
