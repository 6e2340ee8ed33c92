#!/bin/sh
# Prints what is left of HAProxy and of what the role makes.
find /etc/haproxy /etc/systemd/system/haproxy.service.d /usr/local/sbin /var/lib/haproxy /var/lib/llmops-vllm /run/haproxy \
    -type f -o -type s 2>/dev/null | grep -v -e /errors/ -e /dev/log
command -v haproxy socat
ls -d /var/lib/haproxy 2>/dev/null
dpkg --verify haproxy 2>/dev/null | grep '^..5'
systemctl is-active haproxy.service
# After a reload the old process is there until it has finished.
for _ in $(seq 60); do
    [ "$(pgrep -c haproxy)" -le 2 ] && break
    sleep 0.5
done
ss --listening --tcp --numeric --no-header '( sport = :8000 or sport = :8404 or sport = :8443 )'
pgrep -c haproxy
exit 0
