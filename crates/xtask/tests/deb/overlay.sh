# overlay.sh DIR PACKAGE SCRIPT: runs the script in this machine's system, of which only a copy in
# memory changes. Run in namespaces of mounts, processes and networks of its own.
dir=$1 package=$2 script=$3
mount --make-rprivate /
mount -t tmpfs tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
root=$dir/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
# Without systemd's directory nothing tries to start a service.
mount -t tmpfs tmpfs "$root/run"
cp "$package" "$root/tmp/strongroom.deb"
cp "$script" "$root/tmp/inside.sh"
ip link set lo up
env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    chroot "$root" sh -eu /tmp/inside.sh

# All that was written lies in the upper directory; the books of the package manager may stay.
cd "$dir/upper"
books='^[.]/(var/(lib/dpkg|log|cache|backups)/|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?$|etc/[.]pwd[.]lock$)'
left=$(find . \( ! -type d -o -name '*strongroom*' \) ! -type c | grep -v -E "$books" || true)
if [ -n "$left" ]; then
    echo "FAILED: these are left: $left"
    exit 1
fi
echo "nothing is left"
