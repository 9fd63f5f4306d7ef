# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the shell scripts under dev/ share.  Sourced, with $0 in dev/.

set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
# Everything fetched or built lies here; QEMU_DMA_BUILD names another place.
build=${QEMU_DMA_BUILD:-$repo/build}
case $build in /*) ;; *) build=$PWD/$build ;; esac
suite=${DEBIAN_SUITE:-trixie}
stamps=$build/stamp
logs=$build/log
export LC_ALL=C.UTF-8

say() { printf '%s\n' "$*"; }

# One sentence per argument: what is wrong, then what to do about it.
die()
{
    {
        printf 'error: %s\n' "$1"
        shift
        for sentence; do printf '       %s\n' "$sentence"; done
    } >&2
    exit 1
}

step() { printf '[step %s of %s] %s\n' "$1" "$2" "$3"; }

# run_logged NAME HINT COMMAND...: all output goes to a log file; when the
# command fails, the end of the log, its name and the hint are shown.
run_logged()
{
    log=$logs/$1.log hint=$2
    shift 2
    mkdir -p "$logs"
    "$@" >"$log" 2>&1 || fail_logged "$log" "$hint"
}

fail_logged()
{
    tail -n 15 "$1" | sed 's/^/    | /' >&2
    die "this step failed; the full log is $1." "$2"
}

# need_space MIB WHAT
need_space()
{
    free=$(df -Pm "$build" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$1" ] ||
        die "$2 needs $1 MiB in $build, but only $free MiB are free there." \
            "Free some space, or name a directory elsewhere with QEMU_DMA_BUILD=DIR."
}

# only_one NAME: wait until no other run holds this lock; held until exit.
only_one()
{
    mkdir -p "$build/lock" 2>/dev/null && [ -w "$build/lock" ] ||
        die "the directory $build/lock cannot be made or written." \
            "Make $build writable, or name another directory with QEMU_DMA_BUILD=DIR."
    exec 9>"$build/lock/$1"
    flock -n 9 || {
        say "    waiting for another run that holds $build/lock/$1"
        flock 9
    }
}
