# The life of the package on a system. Says what it has seen; ends at the first thing that is wrong.
data=/var/lib/strongroom
unit=/lib/systemd/system/strongroom.service

fail() {
    echo "FAILED: $*"
    exit 1
}

# Becomes true within a minute.
await() {
    for _ in $(seq 600); do
        if "$@" >/tmp/await 2>&1; then return 0; fi
        sleep 0.1
    done
    cat /tmp/await
    fail "never: $*"
}

if [ -e "$unit" ] || [ -e "$data" ]; then fail "strongroom is installed on this machine"; fi
dpkg -i /tmp/strongroom.deb
[ "$(stat -c %U:%G:%a $data)" = strongroom:strongroom:700 ] || fail "$data is not the service's own"
[ -L /etc/systemd/system/multi-user.target.wants/strongroom.service ] || fail "it is not enabled"
[ -s /usr/share/bash-completion/completions/strongroom ] || fail "no completions"
gzip -dc /usr/share/man/man1/strongroom-backup.1.gz | grep -q 'strongroom.backup' || fail "no manual"
[ -s /usr/share/doc/strongroom/third-party-licences.gz ] || fail "no licences"
systemd-analyze verify --man=no strongroom.service
echo installed

# As the unit does it: its line, its user, no privileges, and nothing writable but its directory.
line=$(sed -n 's/^ExecStart=//p' $unit)
mount --bind $data $data
mount -o remount,bind,ro /
serve() {
    # shellcheck disable=SC2086
    exec setpriv --reuid strongroom --regid strongroom --clear-groups --bounding-set=-all \
        --inh-caps=-all --no-new-privs env -i HOME=$data PATH=/usr/bin $line
}
serve >/tmp/served 2>&1 &
server=$!
await curl -fsS --insecure https://127.0.0.1:8443/healthz
await curl -fsS --insecure https://127.0.0.1:8443/readyz
strongroom status
grep -q '^passphrase ' $data/first-run || fail "no passphrase was kept"
! grep -i -q 'passphrase  ' /tmp/served || fail "the passphrase is in the log"
mkdir /tmp/files && echo content >/tmp/files/file && chmod -R a+rX /tmp/files
strongroom backup /tmp/files --name files
strongroom images list | grep -q files || fail "no image"
kill -TERM $server
wait $server || fail "it did not end well: $?"
mount -o remount,bind,rw /
umount $data
echo served

dpkg --remove strongroom
[ ! -e /usr/bin/strongroom ] && [ ! -e $unit ] || fail "the program or its unit is left"
[ -s $data/appliance.key ] && [ -d $data/pools/main ] || fail "removing deleted backups"
echo removed

dpkg --purge strongroom >/tmp/purge 2>&1
cat /tmp/purge
grep -q "rm -r $data" /tmp/purge || fail "purging does not say what is left"
[ -d $data/pools/main ] || fail "purging deleted backups"
getent passwd strongroom >/dev/null || fail "what is left belongs to nobody"
echo purged

# As it says.
rm -r $data && deluser --system strongroom
dpkg -i /tmp/strongroom.deb
dpkg --purge strongroom
! getent passwd strongroom >/dev/null || fail "the user is left"
