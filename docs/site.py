"""What the site is made of (`make site`; a hook of mkdocs, see mkdocs.yml).

The site mirrors the repository: each page keeps its path, so that the links between pages hold in both. Three kinds of
pages are made here: of the notebook with its outputs, of each example, and of the docstrings of each public module. A
link to one of these files leads to its page.
"""

import base64
import json
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md", "docs/**/*.md", "docs/**/*.png",
         "docs/**/*.gif", "docs/site.css")
MODULES = ("tinyadv", "analysis", "attacks", "backend", "certify", "data", "data.augment", "defenses", "evaluation",
           "models", "models.zoo", "nn", "nn.optim", "ops", "plots", "training")
LINK = re.compile(r"\]\(([\w./-]*?(?:LICENSE|\.py|\.ipynb))\)")


def on_files(files, config):
    """The files of the theme, those of the repository, and the pages that are made of others."""
    kept = [file for file in files if file.src_dir != config.docs_dir]
    paths = [path.relative_to(ROOT).as_posix() for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    mirrored = [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in paths]
    made = {page_of(path): code(path) for path in sorted((ROOT / "examples").glob("*.py"))}
    made |= {page_of(ROOT / "LICENSE"): f"# Licence\n\n{(ROOT / 'LICENSE').read_text(encoding='utf-8')}"}
    made |= {f"api/{name}.md": reference(name) for name in MODULES} | notebook(ROOT / "notebooks" / "tour.ipynb")
    return Files([*kept, *mirrored, *(File.generated(config, path, content=text) for path, text in made.items())])


def on_page_markdown(markdown, **_):
    """The links to files that have become pages."""
    return LINK.sub(lambda found: f"]({Path(found[1]).with_suffix('.md').as_posix()})", markdown)


def page_of(path):
    """The path, in the site, of the page that a file becomes."""
    return path.relative_to(ROOT).with_suffix(".md").as_posix()


def code(path):
    """The page of a script."""
    return f"# {path.name}\n\n```python\n{path.read_text(encoding='utf-8')}```\n"


def reference(name):
    """The page of a module's docstrings, which mkdocstrings fills."""
    full = name if name == "tinyadv" else f"tinyadv.{name}"
    return f"# {full}\n\n::: {full}\n"


def notebook(path):
    """{path: content} of the page of an executed notebook, and of its figures."""
    folder, made, parts = path.relative_to(ROOT).parent, {}, []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append(f"```text\n{''.join(output['text'])}```")
            else:
                figure = f"{path.stem}-{len(made) + 1}.png"
                made[(folder / figure).as_posix()] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![Output of the cell above]({figure})")
    return made | {page_of(path): "\n\n".join(parts)}
