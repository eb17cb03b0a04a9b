# shellcheck shell=bash
# What tests/setup, tests/run and tests/bench/run share: where PostgreSQL's programs are and who runs servers.
# Nothing outside the checkout and the system's temporary directory is written.

# Where rustup puts cargo, for shells that were not told.
[ ! -d "${HOME:-/nonexistent}/.cargo/bin" ] || PATH=$PATH:$HOME/.cargo/bin

say() { printf '%s\n' "$*" >&2; }
die() {
    say "$0: $1"
    [ $# -lt 2 ] || say "hint: $2"
    exit 1
}

# The unpacked majors and the user that servers run under. PostgreSQL refuses root; `postgres` comes with
# the distribution's package, `nobody` is everywhere.
server_user() {
    if [ "$(id -u)" -ne 0 ]; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# as_server COMMAND…: run it under that user, with nothing of root's left.
as_server() {
    if [ "$(id -u)" -ne 0 ]; then
        "$@"
    else
        setpriv --reuid="$(server_user)" --regid="$(id -g "$(server_user)")" --clear-groups \
            env HOME=/nonexistent "$@"
    fi
}

# The temporary directory, if the servers' user can reach it, else /tmp.
temporary_directory() {
    local place=${TMPDIR:-/tmp}
    # shellcheck disable=SC2016
    if as_server sh -c 'cd "$1" 2>/dev/null' sh "$place"; then
        (cd "$place" && pwd -P)
    else
        echo /tmp
    fi
}

# Programs that no package of this system has are unpacked here, once per user of the machine.
unpacked_root() {
    echo "$(temporary_directory)/pgkeep-postgresql-$(id -u)"
}

# Prisma's own command line, of the one version whose engine runs without a download of its own, and pnpm, through which
# one of the procedures runs it. Likewise once per user.
prisma_version=6.19.3
pnpm_version=10.18.3
prisma_root() {
    echo "$(temporary_directory)/pgkeep-prisma-$(id -u)"
}

# A tree of other versions is another one, and stays as it is for who uses it.
prisma_tree() {
    echo "$(prisma_root)/$prisma_version-pnpm-$pnpm_version"
}

# prisma_dir: prints the directory with its node_modules, or fails.
prisma_dir() {
    local tree
    tree=$(prisma_tree)
    [ -O "$(prisma_root)" ] && [ -f "$tree/.complete" ] && echo "$tree"
}

# bin_dir MAJOR: prints the directory with initdb, postgres, pg_dump and psql of that major, or fails.
bin_dir() {
    local candidate
    for candidate in \
        "/usr/lib/postgresql/$1/bin" \
        "/usr/pgsql-$1/bin" \
        "/opt/homebrew/opt/postgresql@$1/bin" \
        "/usr/local/opt/postgresql@$1/bin"; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_dump" ]; then
            echo "$candidate"
            return
        fi
    done
    # The marker is written last: without it the tree is one that was never finished.
    if [ -O "$(unpacked_root)" ] && [ -f "$(unpacked_root)/$1/.complete" ]; then
        echo "$(unpacked_root)/$1/usr/lib/postgresql/$1/bin"
        return
    fi
    return 1
}
