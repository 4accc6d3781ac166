"""Reads the findings of `cargo shear --format=json`, and fails if a dependency is unused. Where a dependency is
declared does not matter: the workspace's members declare theirs so that Burn is built once."""

import json
import sys

findings = [f for f in json.load(sys.stdin)["findings"] if "unused" in f["code"]]
for finding in findings:
    print(f"{finding.get('file')}: {finding['message']}")
sys.exit(bool(findings))
