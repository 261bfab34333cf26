# Sourced by scripts/demo and scripts/test: makes .venv if needed, installs the package with the given extras.
# Usage: source scripts/environment.sh [EXTRAS]

PYTHON=.venv/bin/python
STAMP=".venv/.installed-${1:-core}"

[ -x "$PYTHON" ] || python3 -m venv .venv
if [ ! -e "$STAMP" ] || [ pyproject.toml -nt "$STAMP" ]; then
    echo "Installing svfr${1:+[$1]} into .venv (some minutes the first time) ..."
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}"
    touch "$STAMP"
fi
