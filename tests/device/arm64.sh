#!/bin/sh
# The edge client's tests on an emulated 64-bit ARM Debian: sh tests/device/arm64.sh PYTHON FOLDER CASES PYTEST-ARGUMENTS...
#
# PYTHON has pip; FOLDER keeps the ARM system and its wheels; CASES is what tests.device.prepare wrote. Needs root on Debian or Ubuntu: packages are installed, /proc is mounted inside FOLDER in a
# mount namespace of its own. Emulation is slow; its times say nothing about a device.
set -eu
PYTHON=$1 FOLDER=$(realpath -m "$2") CASES=$(realpath "$3") TREE=$(pwd) SUITE=${SUITE:-bookworm}
shift 3
ROOT=$FOLDER/$SUITE SITE=$FOLDER/$SUITE-site

[ "$(id -u)" = 0 ] || { echo "edge-arm64: needs root, to install qemu-user-static and to mount inside $ROOT" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "edge-arm64: needs Debian or Ubuntu, for qemu-user-static and mmdebstrap" >&2; exit 1; }

packages="qemu-user-static mmdebstrap arch-test"
# shellcheck disable=SC2086
dpkg -s $packages >/dev/null 2>&1 || {
    echo "edge-arm64: installing $packages"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null
}
if ! arch-test arm64 >/dev/null 2>&1; then
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
    arch-test arm64 >/dev/null || { echo "edge-arm64: this kernel does not run ARM programs by qemu (binfmt_misc)" >&2; exit 1; }
fi

if [ ! -e "$ROOT/.ready" ] || [ "$0" -nt "$ROOT/.ready" ]; then
    echo "edge-arm64: making an ARM Debian $SUITE in $ROOT"
    rm -rf "$ROOT"
    mkdir -p "$FOLDER"
    # The archive that this machine's own apt uses, where it has the suite. openssl is for a test of the keys.
    mirror=$(apt-get indextargets --format '$(CREATED_BY) $(RELEASE) $(REPO_URI)' |
        awk -v suite="$SUITE" '$1 == "Packages" && $2 == suite { print $3; exit }')
    # shellcheck disable=SC2086
    mmdebstrap --quiet --arch=arm64 --variant=minbase --include=python3-minimal,libpython3-stdlib,openssl "$SUITE" "$ROOT" $mirror
    mkdir -p "$ROOT/fedali" "$ROOT/site" "$ROOT/cases"
    # The processors of a Raspberry Pi 4, for onnxruntime, which complains on stderr about those of another architecture.
    mkdir -p "$ROOT/sys/devices/system/cpu"
    echo 0-1 | tee "$ROOT/sys/devices/system/cpu/possible" >"$ROOT/sys/devices/system/cpu/present"
    for processor in 0 1; do
        printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n' $processor
        printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    done >"$ROOT/cpuinfo"
    touch "$ROOT/.ready"
fi

if [ ! -e "$SITE/.ready" ] || [ pyproject.toml -nt "$SITE/.ready" ] || [ constraints.txt -nt "$SITE/.ready" ]; then
    version=$(chroot "$ROOT" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "edge-arm64: wheels of the extra client for aarch64 and Python $version"
    rm -rf "$SITE"
    # shellcheck disable=SC2046
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-compile --target "$SITE" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
        --implementation cp --python-version "$version" --only-binary=:all: -c constraints.txt \
        $("$PYTHON" -m tests.device.requirements) pytest hypothesis
    touch "$SITE/.ready"
fi

# shellcheck disable=SC2016
ROOT=$ROOT SITE=$SITE TREE=$TREE CASES=$CASES exec unshare --mount --pid --fork sh -eu -c '
    mount --bind "$TREE" "$ROOT/fedali"
    mount --bind "$SITE" "$ROOT/site"
    mount --bind "$CASES" "$ROOT/cases"
    mount -t proc proc "$ROOT/proc"
    mount --rbind /dev "$ROOT/dev"
    mount --bind "$ROOT/cpuinfo" "$ROOT/proc/cpuinfo"
    exec chroot "$ROOT" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/root PYTHONDONTWRITEBYTECODE=1 \
        PYTHONPATH=/site:/fedali/client:/fedali FEDALI_DEVICE_CASES=/cases \
        sh -c "cd /fedali && exec python3 -m pytest \"\$@\"" sh "$@"
' sh "$@"
