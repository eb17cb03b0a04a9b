# shellcheck shell=bash
# What tests/system/run and tests/system/image share: trees of a Debian system, and a systemd booted in one.
#
# Everything is below the temporary directory; overlays live in a mount namespace of our own, so that nothing stays
# mounted however a run ends.
# shellcheck source=tests/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

suite=bookworm
programs=$(temporary_directory)/pgkeep-system-$(id -u)

needs_root() {
    [ "$(id -u)" -eq 0 ] || die "a systemd can be booted by root alone" "run it as root"
    # The namespace goes with the last process in it, and all mounts with it.
    if [ -z "${PGKEEP_TEST_OWN_MOUNTS:-}" ]; then
        PGKEEP_TEST_OWN_MOUNTS=yes exec unshare --mount --propagation slave -- "$0" "$@"
    fi
    unset PGKEEP_TEST_OWN_MOUNTS
}

# begin: makes the run's directory and sees to it that it goes, with everything that was started.
begin() {
    mkdir -p "$programs"
    if [ ! -O "$programs" ] || [ -L "$programs" ]; then
        die "$programs belongs to another user" "set TMPDIR to another directory"
    fi
    local old
    for old in "$(temporary_directory)"/pgkeep-system-run.*; do
        if [ -O "$old" ] && [ -f "$old/run.pid" ] && has_ended "$(cat "$old/run.pid")"; then
            end_containers "$old"
            rm -rf --one-file-system "$old"
        fi
    done
    run=$(mktemp -d "$(temporary_directory)/pgkeep-system-run.XXXXXX")
    echo $$ >"$run/run.pid"
    chmod 755 "$run"
    # What nspawn notes there goes with our mounts, and it cannot remove it from a disk.
    mkdir -p /run/systemd/nspawn
    mount -t tmpfs -o mode=755 tmpfs /run/systemd/nspawn
    trap finish EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# end_containers DIRECTORY: ends those whose trees lie in it; they outlive a run that was killed.
end_containers() {
    local place pid name words processes
    for place in /proc/[0-9]*; do
        { read -r name <"$place/comm" && mapfile -d '' -t words <"$place/cmdline"; } 2>/dev/null || continue
        [[ $name = systemd-nspawn && " ${words[*]}" == *" --directory=$1/"* ]] || continue
        say "ending a container that a killed run left (${place#/proc/})"
        # The end of its first process is the end of all in it.
        mapfile -t processes < <(echo "${place#/proc/}"; descendants "${place#/proc/}")
        kill -KILL "${processes[@]}" 2>/dev/null || true
        for pid in "${processes[@]}"; do until_true "process $pid has ended" 30 has_ended "$pid"; done
    done
}

# has_ended PID: also where nobody has asked for its exit code yet.
has_ended() { ! readlink "/proc/$1/exe" >/dev/null 2>&1; }

nspawn_pid=
init=
# shellcheck disable=SC2317  # called by the trap
finish() {
    local status=$?
    trap - EXIT INT TERM HUP
    if [ "$status" -ne 0 ] && [ -n "$nspawn_pid" ]; then
        say "--- the end of the journal"
        inside journalctl --no-pager --lines=60 --output=short >&2 2>/dev/null || tail -n 30 "$run/console.log" >&2
    fi
    shut_down
    while read -r place; do umount --lazy "$place"; done < <(
        awk -v run="$run/" 'index($2, run) == 1 { print $2 }' /proc/self/mounts | tac)
    rm -rf --one-file-system "$run"
    exit "$status"
}

# until_true WHAT SECONDS COMMAND…
until_true() {
    local what=$1 seconds=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || die "not within $seconds s: $what"
        sleep 0.2
    done
}

# ok CLAIM: what was shown just now.
ok() { say "ok  $*"; }

# base_tree NAME PACKAGE…: a minimal system with these packages, made once; prints where.
base_tree() {
    local tree=$programs/$1 packages
    packages=$(IFS=,; echo "${*:2}")
    local what="$suite $packages"
    exec 9>"$tree.lock"
    flock 9
    if [ "$(cat "$tree.complete" 2>/dev/null)" != "$what" ]; then
        say "building a $suite system in $tree"
        rm -rf --one-file-system "$tree" "$tree.complete"
        # The installed system's own rules apply: scripts run, users and the server's cluster are made.
        mmdebstrap --quiet --variant=minbase \
            --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
            --aptopt='Acquire::Check-Valid-Until "false"' \
            ${packages:+--include="$packages"} "$suite" "$tree" >&2
        echo "$what" >"$tree.complete"
    fi
    exec 9>&-
    echo "$tree"
}

# overlay NAME TREE: a copy of the tree that can be written to, and goes with the run; prints where.
overlay() {
    local place=$run/$1
    mkdir -p "$place"/{upper,work,root}
    mount -t overlay -o "lowerdir=$2,upperdir=$place/upper,workdir=$place/work" overlay "$place/root"
    echo "$place/root"
}

# nspawn ARGUMENT…: the one of the booted system, which this machine need not have.
nspawn() {
    local system=$programs/systemd library
    library=$(echo "$system"/usr/lib/*-linux-gnu/systemd)
    LD_LIBRARY_PATH=$library exec "$system/usr/bin/systemd-nspawn" --quiet --register=no --keep-unit "$@"
}

# boot TREE: its systemd as the first process of a container without a network.
boot() {
    # In a session of its own, so that a signal from the terminal does not end it before we do.
    (trap - EXIT; exec setsid --wait bash -c "$(declare -f nspawn); programs=$programs; nspawn \"\$@\"" nspawn \
        --directory="$1" --private-network --machine=pgkeep-test --boot) \
        </dev/null >"$run/console.log" 2>&1 &
    nspawn_pid=$!
    until_true 'the container boots' 60 find_init
    until_true 'systemd is up' 120 is_up
}

find_init() {
    kill -0 "$nspawn_pid" 2>/dev/null || { cat "$run/console.log" >&2; die "systemd-nspawn has ended"; }
    init=$(descendants "$nspawn_pid" | while read -r pid; do
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != systemd ] || echo "$pid"
    done | head -n 1)
    [ -n "$init" ]
}

descendants() {
    local child
    cat "/proc/$1/task/"*/children 2>/dev/null | tr ' ' '\n' | while read -r child; do
        [ -z "$child" ] || { echo "$child"; descendants "$child"; }
    done
}

is_up() {
    case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) return 1 ;; esac
}

# inside COMMAND…: as root in the container, with an environment of its own.
inside() {
    nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup -- \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 SYSTEMD_PAGER= NO_COLOR=1 "$@" </dev/null
}

# written PATH MODE: standard input becomes that file in the container.
written() {
    local text
    text=$(cat; echo .)
    # shellcheck disable=SC2016
    inside sh -c 'mkdir -p "${1%/*}" && printf %s "$3" >"$1" && chmod "$2" "$1"' sh "$1" "$2" "${text%.}"
}

shut_down() {
    [ -n "$nspawn_pid" ] || return 0
    [ -z "${init:-}" ] || inside systemctl poweroff >/dev/null 2>&1 || true
    for _ in $(seq 300); do
        kill -0 "$nspawn_pid" 2>/dev/null || break
        sleep 0.1
    done
    # The end of its first process is the end of a container; the number is its own as long as nspawn lives.
    if kill -0 "$nspawn_pid" 2>/dev/null; then
        [ -z "${init:-}" ] || kill -KILL "$init" 2>/dev/null || true
        kill -KILL "$nspawn_pid" 2>/dev/null || true
    fi
    wait "$nspawn_pid" 2>/dev/null || true
    nspawn_pid=''
}
