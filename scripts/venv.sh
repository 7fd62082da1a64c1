# To be sourced from the project's folder. `venv` makes .venv with the project in it, `venv dev` with the
# tools for developers, too. Nothing is installed while pyproject.toml is what it was the last time.

venv() {
    cmp -s pyproject.toml .venv/installed-dev && return
    cmp -s pyproject.toml ".venv/installed${1:+-$1}" && return
    [ -x .venv/bin/python ] || make_venv || exit 1
    echo "Installing into .venv ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}" || exit 1
    cp pyproject.toml ".venv/installed${1:+-$1}"
}

make_venv() {
    for python in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$python" -m venv --clear .venv && return
            rm -rf .venv
            return 1
        fi
    done
    echo "zmule needs Python 3.11 or newer, and there is none on the PATH." >&2
    return 1
}
