# shellcheck shell=bash
# What tests/bench/run and tests/bench/s3 share: a server as `initdb` makes it, its databases, times and the table.
# Whoever sources it stands in the checkout's root and has sourced tests/common.sh.
# Much is called by name, through `timed` and `peak`; variables are set here and used there.
# shellcheck disable=SC2034,SC2317

runs=${RUNS:-3}
scale=${SCALE:-100}
small=$((scale / 5))
profile=${PROFILE:-release}

# needs GB: a place to work in that has so much free; `finish` leaves nothing of it.
needs() {
    local free
    place=$(temporary_directory)
    free=$(df -Pk "$place" | awk 'NR == 2 {print int($4 / 1048576)}')
    [ "$free" -ge "$1" ] || die "$place has $free GB free" "set TMPDIR to a place with more"
    work=$(mktemp -d "$place/pgkeep-bench.XXXXXX")
    chmod 755 "$work"
    mkdir "$work/server"
    [ "$(id -u)" -ne 0 ] || chown "$(server_user)" "$work/server"
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# Processes that are ended with the bench.
children=()
finish() {
    trap - EXIT
    local child
    for child in "${children[@]}"; do kill "$child" 2>/dev/null || true; done
    [ ! -f "$work/server/data/postmaster.pid" ] ||
        as_server "$bin/pg_ctl" stop --silent --mode=immediate --pgdata="$work/server/data" || true
    rm -rf "$work"
}

# A server as `initdb` makes it: durability on, 128 MB of shared buffers.
start_server() {
    bin=$(bin_dir 15)
    (
        cd /
        as_server "$bin/initdb" --pgdata="$work/server/data" --username=postgres --auth=trust --no-sync \
            --encoding=UTF8 --locale=C.UTF-8 >/dev/null
        as_server "$bin/pg_ctl" start --silent --wait --pgdata="$work/server/data" --log="$work/server/log" \
            --options="-c listen_addresses='' -k $work/server"
    )
    export PGHOST=$work/server PGUSER=postgres PGDATABASE=bench
    export PATH=$bin:$PATH
    unset PGPORT PGPASSWORD PGOPTIONS
}

sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }

# build DATABASE SCALE
build() {
    say "building database $1 at scale $2"
    createdb "$1"
    sql -d "$1" -v scale="$2" -f tests/bench/database.sql >/dev/null
    pgbench -i -q -s $((($2 * 35 + 99) / 100)) "$1" >/dev/null 2>&1
    sql -d "$1" -c CHECKPOINT
}

# keep COMMAND…: pgkeep with the home, the repository and the database of this moment.
database=bench
keep() { env -i "${environment[@]}" "$pgkeep" "$@"; }
# `exec`, so that a process that is watched is pgkeep and not a shell.
keep_itself() { exec env -i "${environment[@]}" "$pgkeep" "$@"; }
# at REPOSITORY [VARIABLE=VALUE…]: the repository and the database of the next commands.
at() {
    local repository=$1
    shift
    environment=(PATH="$PATH" HOME="$home" PGKEEP_HOME="$home" PGKEEP_REPOSITORY="$repository"
        PGKEEP_DATABASE_URL="postgresql:///$database?host=$PGHOST&user=postgres" "$@")
}
snapshot() { keep --json snapshot >"$work/snapshot.json"; }
stored() { jq .stored_bytes "$work/snapshot.json"; }

# timed NAME COMMAND…: appends the milliseconds of one run to the figures of that name.
declare -A figures
timed() {
    local name=$1 start end
    shift
    sync
    start=${EPOCHREALTIME/[.,]/}
    "$@" >/dev/null
    end=${EPOCHREALTIME/[.,]/}
    figures[$name]+="$(((end - start) / 1000)) "
    say "  $name: $(((end - start) / 1000)) ms"
}
median() {
    # shellcheck disable=SC2086
    printf '%s\n' ${figures[$1]} | sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'
}

# Peak memory of the pgkeep process alone, in MiB, as the kernel counted it.
peak() {
    local peak=0 now id
    "$@" >/dev/null &
    id=$!
    exec 8<> <(:)
    while kill -0 "$id" 2>/dev/null; do
        now=$(awk '/^VmHWM:/ {print $2}' "/proc/$id/status" 2>/dev/null) || now=
        [ -z "$now" ] || peak=$now
        read -r -t 0.02 -u 8 || true
    done
    exec 8>&-
    wait "$id"
    echo $((peak / 1024))
}

size() { sql -d "$1" -c "SELECT pg_size_pretty(pg_database_size('$1'))"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", a / b}'; }
percent() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", 100 * a / b}'; }
seconds() { awk -v a="$(median "$1")" 'BEGIN {printf "%.2f s", a / 1000}'; }

# head: PostgreSQL, machine, databases; and the table's first lines.
head_of_table() {
    echo
    echo "PostgreSQL $(sql -c 'SHOW server_version'), $(nproc) cores, $1, medians of $runs"
    echo
    printf '| %-42s | %-44s | %9s | %8s | |\n' work against ratio 'at most'
    echo '|---|---|---|---|---|'
}
failed=0
# row WHAT AGAINST RATIO [LIMIT]
row() {
    local verdict=met
    [ -n "$4" ] || verdict=
    [ -z "$4" ] || awk -v a="$3" -v b="$4" 'BEGIN {exit !(a <= b)}' || { verdict='NOT MET'; failed=1; }
    printf '| %-42s | %-44s | %9s | %8s | %s |\n' "$1" "$2" "$3" "$4" "$verdict"
}
