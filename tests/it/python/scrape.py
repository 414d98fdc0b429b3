"""Reads /metrics with Prometheus's own library, once for each line on stdin, and says the samples as one JSON object.

Arguments: the address, and the operators' token.
"""

import json
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

url, token = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

for _ in sys.stdin:
    text = direct.open(request, timeout=60).read().decode()
    samples = [
        {"name": sample.name, "type": family.type, "help": family.documentation, "labels": sample.labels, "value": sample.value}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    print(json.dumps({"samples": samples}), flush=True)
