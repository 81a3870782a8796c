"""Checks the Terraform files without an account: `terraform validate` needs the provider's program, which this does not.

    terraform.py WHEEL

Parsed by python-hcl2. Each variable, resource and data source that is referred to is declared, and each variable is used. WHEEL is
`cdktf-cdktf-provider-aws`: the provider's own schema as Python classes, read and never run. Against it: every argument and block exists,
none that is required is missing, every attribute that is referred to is one. Types of values are not checked.
"""

import ast
import pathlib
import re
import sys
import zipfile

import hcl2

FILES = pathlib.Path(__file__).parent.parent / "terraform"
# Terraform's own, in every resource.
META = {"lifecycle", "provisioner", "connection"}


class Schema:
    """The provider's resources, by the name of the module that has them."""

    def __init__(self, wheel):
        self.files = zipfile.ZipFile(wheel)
        self.modules = {}
        about = self.files.read("cdktf_cdktf_provider_aws/__init__.py").decode()
        self.version = re.search(r"provider version (\S+)", about)[1]

    def classes(self, module):
        if module not in self.modules:
            try:
                text = self.files.read(f"cdktf_cdktf_provider_aws/{module}/__init__.py").decode()
            except KeyError:
                sys.exit(f"terraform: the provider has no {module}")
            self.modules[module] = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}
        return self.modules[module]

    def based_on(self, module, base):
        return next(node for node in self.classes(module).values() if any(base in ast.unparse(of) for of in node.bases))

    @staticmethod
    def arguments(node):
        """Name, whether it may be left out, and the type, of each argument."""
        init = next(part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__").args
        return {arg.arg: (default is not None, ast.unparse(arg.annotation))
                for arg, default in zip(init.kwonlyargs, init.kw_defaults, strict=True)}

    def attributes(self, module, base):
        node = self.based_on(module, base)
        return {part.name for part in node.body if isinstance(part, ast.FunctionDef)
                and any(ast.unparse(decorator).startswith("builtins.property") for decorator in part.decorator_list)}

    def check(self, module, node, body, place):
        """Yields what is wrong with a block."""
        known = self.arguments(node)
        for name in sorted(set(body) - set(known) - META):
            yield f"{place}: there is no {name}"
        for name, (optional, _) in known.items():
            if not optional and name not in body:
                yield f"{place}: {name} is required"
        for name, value in body.items():
            nested = [inner for inner in self.classes(module) if f"'{inner}'" in known.get(name, ("", ""))[1]]
            if nested and isinstance(value, list):
                for block in value:
                    if isinstance(block, dict):
                        yield from self.check(module, self.classes(module)[nested[0]], block, f"{place}.{name}")


def main(wheel):
    schema, problems, declared, text, checked = Schema(wheel), [], {}, "", 0
    for path in sorted(FILES.glob("*.tf")):
        source = path.read_text()
        text += re.sub(r"#[^\n]*", "", source)
        parsed = hcl2.loads(source)
        for block in parsed.get("variable", []):
            declared |= {f"var.{name}": None for name in block}
        for block in parsed.get("provider", []):
            for body in block.values():
                problems += schema.check("provider", schema.classes("provider")["AwsProviderConfig"], body, "provider")
        for section, prefix, base in (("resource", "", "TerraformResource"), ("data", "data.", "TerraformDataSource")):
            for block in parsed.get(section, []):
                for kind, named in block.items():
                    module = ("data_" if prefix else "") + (kind if prefix else kind.removeprefix("aws_"))
                    for name, body in named.items():
                        place = f"{prefix}{kind}.{name}"
                        declared[place] = schema.attributes(module, base)
                        problems += schema.check(module, schema.based_on(module, "TerraformMetaArguments"), body, place)
                        checked += 1
    used = set(re.findall(r"\b(var\.\w+)", text))
    referred = re.findall(r"((?<![\w.\"])aws_\w+\.\w+|\bdata\.aws_\w+\.\w+)(?:\[[^]]*\])?\.(\w+)", text)
    problems += [f"{place} has no attribute {name}" for place, name in referred if name not in (declared.get(place) or {name})]
    used |= {place for place, _ in referred}
    problems += [f"{name} is not declared" for name in sorted(used - set(declared))]
    problems += [f"{name} is never used" for name in sorted(set(declared) - used) if name.startswith("var.")]
    if problems:
        sys.exit("\n".join(f"terraform: {problem}" for problem in problems))
    print(f"terraform: {checked} resources and data sources as the AWS provider {schema.version} has them, "
          f"{len(declared)} declarations, {len(used)} of them referred to")


main(sys.argv[1])
