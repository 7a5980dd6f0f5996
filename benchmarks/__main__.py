"""Lists the benchmarks: python -m benchmarks."""

import ast
import pathlib

for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
    text = path.read_text()
    if path.name != "__main__.py" and "__main__" in text:
        about = ast.get_docstring(ast.parse(text)).splitlines()[0]
        print(f"python -m benchmarks.{path.stem:<14} {about}")
