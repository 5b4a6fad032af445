"""What mkdocs is told besides mkdocs.yml: pages that are not in docs/, links to them, and the order of all.

Every page in docs/ is in the navigation. One that is not named here stands in the section of its folder, or under More.
"""
import os
import posixpath
import re

from mkdocs.structure.files import File

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Where a file outside docs/ is in the site; others that a page links to keep their path.
OUTSIDE = {
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "LICENSE": "LICENSE.txt",
    "bench/report.md": "bench.md",
    "target/docs/functions.md": "functions.md",
}
FOLDERS = ("examples", "bench")

SECTIONS = {
    "Start": ["index.md", "install.md", "start.md"],
    "Rooms": [
        "users.md", "api_keys.md", "gateway_keys.md", "permissions.md", "requests.md", "authenticator.md",
        "operator.md", "manifest.md", "audit.md", "usage.md", "jobs.md", "replicas.md",
    ],
    "Operations": ["operations.md", "monitoring.md", "upgrade.md", "log.md", "settings.md"],
    "Reference": ["functions.md", "errors.md", "tokens.md", "security.md", "bench.md", "changelog.md", "contributing.md"],
}  # fmt: skip
TITLES = {"coming-from": "Coming from"}

origin = {}


def on_files(files, config):
    for source, place in OUTSIDE.items():
        if source != "README.md":
            path = os.path.join(ROOT, source)
            if not os.path.exists(path):
                raise SystemExit(f"{source} is missing: run make docs")
            files.append(File.generated(config, place, abs_src_path=path))
            origin[place] = source
    for folder in FOLDERS:
        for directory, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in sorted(names):
                path = os.path.join(directory, name)
                place = os.path.relpath(path, ROOT)
                if place not in OUTSIDE and not place.endswith(".md") and os.path.isfile(path):
                    files.append(File.generated(config, place, abs_src_path=path))
    pages = [file.src_uri for file in files.documentation_pages()]
    known = {page for section in SECTIONS.values() for page in section}
    nav = [{title: [page for page in section if page in pages]} for title, section in SECTIONS.items()]
    others = {}
    for page in sorted(set(pages) - known):
        folder = posixpath.dirname(page)
        others.setdefault(TITLES.get(folder, folder.capitalize() or "More"), []).append(page)
    config.nav = nav[:2] + [{title: found} for title, found in sorted(others.items())] + nav[2:]
    return files


def on_page_markdown(markdown, page, config, files):
    place = page.file.src_uri
    source = origin.get(place, "docs/" + place)

    def link(found):
        target, anchor = re.fullmatch(r"([^#]*)(#.*)?", found[1]).groups()
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        there = OUTSIDE.get(there, there.removeprefix("docs/"))
        if not files.get_file_from_path(there) and there.startswith(FOLDERS):
            # A folder: its first file.
            inside = sorted(file.src_uri for file in files if file.src_uri.startswith(there + "/"))
            there = inside[0] if inside else there
        return f"]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{anchor or ''})"

    # What is for scripts/pages, and what psql shows.
    markdown = re.sub(r"^<!-- (?:run|as|set|not run|from)\b.*?-->\n", "", markdown, flags=re.S | re.M)
    markdown = re.sub(r"^```\n(?=shop[=-])", "```psql\n", markdown, flags=re.M)
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.S | re.M)
    return "".join(part if part.startswith("```") else re.sub(r"\]\(([^)\s]+)\)", link, part) for part in parts)
