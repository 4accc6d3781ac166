"""Checks the relative links and pictures of Markdown files: the file is there, and so is the heading.

    python3 scripts/lints/links.py FILE...
"""

import re
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.MULTILINE)


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    seen = {}
    for heading in HEADING.findall(FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        yield f"{slug}-{count}" if count else slug


def main(pages):
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    tracked = set(listed) | {str(parent) for file in listed for parent in Path(file).parents}
    broken = 0
    for page in map(Path, pages):
        for target in LINK.findall(FENCE.sub("", page.read_text())):
            if re.match(r"[a-z]+:", target) or target.startswith("crate::"):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve().relative_to(Path.cwd()) if path else page
            if str(file) not in tracked:
                why = "is not in the repository"
            elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
                why = "has no such heading"
            else:
                continue
            print(f"{page}: {target} {why}")
            broken += 1
    print(f"links of {len(pages)} pages: {broken or 'none'} broken")
    return 1 if broken else 0


sys.exit(main(sys.argv[1:]))
