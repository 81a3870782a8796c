"""Reads the Terraform files with python-hcl2 and checks what can be checked without providers: that each variable, resource and data
source that is referred to is declared, and the reverse for variables. `terraform validate` was not run: it needs the providers."""

import pathlib
import re
import sys

import hcl2

here = pathlib.Path(__file__).parent.parent / "terraform"
declared, text = set(), ""
for path in sorted(here.glob("*.tf")):
    source = path.read_text()
    text += re.sub(r"#[^\n]*", "", source)
    parsed = hcl2.loads(source)
    for block in parsed.get("variable", []):
        declared |= {f"var.{name}" for name in block}
    for block in parsed.get("resource", []):
        declared |= {f"{kind}.{name}" for kind, named in block.items() for name in named}
    for block in parsed.get("data", []):
        declared |= {f"data.{kind}.{name}" for kind, named in block.items() for name in named}
used = set(re.findall(r"\b(var\.\w+)", text))
used |= set(re.findall(r"\b(data\.aws_\w+\.\w+)", text))
used |= set(re.findall(r"(?<![\w.\"])(aws_\w+\.\w+)", text))
missing = used - declared
unused = {name for name in declared if name.startswith("var.")} - used
if missing or unused:
    sys.exit(f"not declared: {sorted(missing)}; never used: {sorted(unused)}")
print(f"terraform: {len(declared)} declarations, {len(used)} of them referred to; parsed, not validated against the providers")
