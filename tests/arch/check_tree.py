#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the tree against tests/arch/rules.py.

usage: check_tree.py ROOT [BIN_DIR]

Prints one line per violation ("path:line: what") and a note per size that is on its way to be one. With BIN_DIR the
programs' shared libraries are checked too. Exit status: 0 all holds, 1 violations.
"""

import os
import re
import subprocess
import sys

import rules

CODE = (".cpp", ".h", ".c")
SPDX = "SPDX-License-Identifier: Apache-2.0"
SPDX_KINDS = CODE + (".py", ".sh", ".cmake")
# Parents too common for a path below them to tell that it is this machine's.
COMMON_PARENTS = {"/", "/tmp", "/var/tmp", "/home", "/root", "/srv", "/opt", "/usr/src", "/mnt"}


def tree_files(root):
    """The tree's text files, as paths relative to root, without what builds and tools leave there."""
    found = []
    for folder, folders, names in os.walk(root):
        top = folder == root
        folders[:] = [f for f in folders if f not in (".git", "__pycache__", ".cache") and
                      not (top and re.match(r"build($|-)", f))]
        found += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), errors="replace") as f:
        return f.read()


def bare(text):
    """C++ text without comments and the insides of literals, line by line as before."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'',
                         re.S)
    return pattern.sub(lambda m: ('""' if m[0][0] in "\"R" else " ") + "\n" * m[0].count("\n"), text)


def component(path):
    """Which component of rules.EDGES a file belongs to; None for tests and what is no component."""
    m = re.match(r"libvtpm/(?:include/vtpm|src)/(\w+)/", path) or re.match(r"(daemon/\w+|cli|container-hooks|examples)/", path)
    return m[1] if m else None


def included_path(root, path, name, quoted):
    """The file of the tree that an #include names, or None for a system header."""
    places = [os.path.dirname(path), "libvtpm/src", ""] if quoted else ["libvtpm/include", "libvtpm/src", ""]
    for place in places:
        candidate = os.path.normpath(os.path.join(place, name))
        if os.path.isfile(os.path.join(root, candidate)):
            return candidate
    return None


def check_includes(root, path, text):
    own = component(path)
    for m in re.finditer(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', text, re.M):
        where, name = f"{path}:{text.count(chr(10), 0, m.start()) + 1}", m[2]
        target = included_path(root, path, name, m[1] == '"')
        if target:
            yield from check_edge(where, path, own, target)
        else:
            yield from check_header(where, path, name)


def check_edge(where, path, own, target):
    other = component(target)
    if path.startswith("tests/"):
        return
    if target.startswith("tests/"):
        yield f"{where}: includes {target}, a test's"
    elif other and own not in rules.EDGES:
        yield f"{where}: {path} is in no component of tests/arch/rules.py, yet includes {target}"
    elif other and other != own and other not in rules.EDGES[own]:
        yield f"{where}: {own} must not include {other} ({target})"
    if path.startswith("libvtpm/include/") and not target.startswith("libvtpm/include/"):
        yield f"{where}: a public header includes {target}, which is not installed"


def check_header(where, path, name):
    for prefix, allowed, why in rules.HEADERS:
        if name.startswith(prefix) and not any(path.startswith(a) for a in allowed):
            if not path.startswith("tests/") or prefix in rules.ONLY_HERE:
                yield f"{where}: <{name}> does not belong here: {why}"


def check_calls(path, code):
    if path.startswith("tests/") or any(path.startswith(a) for a in rules.RAW_CALLS_ALLOWED):
        return
    names = "|".join(sorted(rules.RAW_CALLS))
    for m in re.finditer(rf"(?<![\w.>:])(?:::)?({names})\s*\(|\bsyscall\s*\(\s*(?:SYS|__NR)_({names})\b", code):
        line = code.count("\n", 0, m.start()) + 1
        yield f"{path}:{line}: {m[1] or m[2]}(2) is called outside libvtpm/src/os"


def functions(code):
    """(first line, lines) of every function body in bare C++ text, the outermost ones only."""
    # member{value} of a constructor's initialisers would look like the beginning of its body.
    code = re.sub(r"(?<=[\w>])\{([^{}]*)\}", lambda m: "()" + "\n" * m[0].count("\n"), code)
    definition = re.compile(r"\)(?:\s*(?:const|noexcept|override|final|mutable|&&?))*\s*(?:->[^;{}]+|:[^:].*)?$", re.S)
    depth, head, inside, line, start_line = 0, "", None, 1, 1
    for character in code:
        if character == "\n":
            line += 1
        if character == "{":
            if inside is None and definition.search(head) and not re.match(r"\s*(namespace|class|struct|enum|union)\b", head):
                inside, start_line = depth, line
            depth += 1
            head = ""
        elif character == "}":
            depth -= 1
            if inside == depth:
                yield start_line, line - start_line + 1
                inside = None
            head = ""
        elif character == ";":
            head = ""
        else:
            head += character


def check_sizes(path, text, code, notes):
    def judge(where, what, lines, limits):
        if lines > limits[1]:
            yield f"{where}: {what} of {lines} lines; at most {limits[1]}"
        elif lines > limits[0]:
            notes.append(f"{where}: {what} of {lines} lines; aim for {limits[0]}")

    yield from judge(path, "a file", text.count("\n"), rules.FILE_LINES)
    if not path.startswith("tests/"):
        for line, lines in functions(code):
            yield from judge(f"{path}:{line}", "a function", lines, rules.FUNCTION_LINES)


def check_spdx(path, text):
    lines = text.splitlines()[:3]
    script = bool(lines) and lines[0].startswith("#!")
    if path.endswith(SPDX_KINDS) or os.path.basename(path) == "CMakeLists.txt" or script:
        if not any(SPDX in line for line in lines[:2]):
            yield f"{path}:1: no line '{SPDX}' at its beginning"


def machine_paths(root):
    """Absolute paths that only this checkout's machine has: its own place and its neighbours'."""
    parent = os.path.dirname(root)
    if parent in COMMON_PARENTS:
        return [root]
    return [os.path.join(parent, name) for name in os.listdir(parent) if len(name) > 2]


def check_paths(path, text, places):
    for place in places:
        m = re.search(re.escape(place) + r"(?![\w-])", text)
        if m:
            yield f"{path}:{text.count(chr(10), 0, m.start()) + 1}: names a path of this machine: {place}"


def check_tree(root, notes):
    root = os.path.realpath(root)
    places = machine_paths(root)
    for path in tree_files(root):
        if path.startswith("tests/fuzz/corpus/"):
            continue
        text = read(root, path)
        yield from check_spdx(path, text)
        yield from check_paths(path, text, places)
        if path.endswith(CODE):
            code = bare(text)
            yield from check_includes(root, path, text)
            yield from check_calls(path, code)
            yield from check_sizes(path, text, code, notes)


def libraries(program):
    """Every shared library that a program loads, as ldd finds them."""
    output = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return set(re.findall(r"^\s*(\S+?\.so[.\d]*)", output, re.M))


def check_programs(bin_dir):
    for program, forbidden in rules.FORBIDDEN_LIBRARIES.items():
        path = os.path.join(bin_dir, program)
        if not os.path.exists(path):
            yield f"{program}: not built in {bin_dir}"
            continue
        loaded = libraries(path)
        for part in forbidden:
            for name in sorted(n for n in loaded if part in n):
                yield f"{program}: loads {name}"
        for part in rules.REQUIRED_LIBRARIES.get(program, []):
            if not any(part in n for n in loaded):
                yield f"{program}: does not load {part}"


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    notes = []
    violations = list(check_tree(sys.argv[1], notes))
    if len(sys.argv) == 3:
        violations += check_programs(sys.argv[2])
    for note in notes:
        print("note: " + note)
    for violation in violations:
        print(violation)
    print(f"{len(violations)} violations, {len(notes)} notes")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
