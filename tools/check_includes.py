#!/usr/bin/env python3
"""Checks the direction of dependencies (docs/architecture.md).

Every `#include "module/…"` in src/<module> must name the module itself or one of the modules its CMakeLists.txt names in
DEPS, directly or through them; torch-free modules must not include LibTorch; public headers must not include
<torch/torch.h>. Prints each violation and exits 1 if there is one.
"""
import argparse
import pathlib
import re
import sys

TORCH_INCLUDE = re.compile(r'#include\s*<(torch|ATen|c10)/')
PROJECT_INCLUDE = re.compile(r'#include\s*"([a-z_0-9]+)/')
MODULE = re.compile(r'llava_module\(\s*(\w+)(.*?)\)', re.S)


def read_modules(src):
    """{target: (folder, [direct deps], uses torch)} of every llava_module() call."""
    modules = {}
    for cmake in sorted(src.glob('*/CMakeLists.txt')):
        for name, body in MODULE.findall(cmake.read_text()):
            deps = re.search(r'\bDEPS\b(.*?)(?=\b(?:LIBS|SOURCES|TORCH)\b|$)', body, re.S)
            modules[name] = (cmake.parent.name, re.findall(r'\w+', deps.group(1)) if deps else [],
                             re.search(r'\bTORCH\b', body) is not None)
    return modules


def allowed_folders(modules):
    """{folder: folders it may include}, the closure over the link lines."""
    def closure(target, seen):
        for dep in modules[target][1]:
            if dep not in seen and dep in modules:
                seen.add(dep)
                closure(dep, seen)
        return seen
    allowed = {}
    for target, (folder, _, _) in modules.items():
        names = allowed.setdefault(folder, {folder})
        names |= {modules[t][0] for t in closure(target, set())}
    return allowed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--src', type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / 'src')
    src = parser.parse_args().src
    modules = read_modules(src)
    if not modules:
        sys.exit(f'no llava_module() under {src}')
    allowed = allowed_folders(modules)
    torch_folders = {folder for folder, _, torch in modules.values() if torch}
    problems = []
    for path in sorted(src.glob('*/**/*')):
        folder = path.relative_to(src).parts[0]
        if path.suffix not in ('.h', '.cpp') or folder not in allowed:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            where = f'{path.relative_to(src.parent)}:{number}'
            project = PROJECT_INCLUDE.match(line)
            if project and project.group(1) not in allowed[folder]:
                problems.append(f'{where}: {folder} may not include {project.group(1)}')
            if TORCH_INCLUDE.match(line) and folder not in torch_folders:
                problems.append(f'{where}: {folder} is torch-free')
            if path.suffix == '.h' and re.match(r'#include\s*<torch/torch.h>', line):
                problems.append(f'{where}: headers include small ATen headers, never torch/torch.h')
    print('\n'.join(problems) or f'{len(modules)} modules: every include follows the link lines')
    sys.exit(1 if problems else 0)


if __name__ == '__main__':
    main()
