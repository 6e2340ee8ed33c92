#!/bin/sh
# Makes the keys of a registry, each kind once: an authority (ca), the registry's own (server), and that of the hosts
# which may use it (client). Prints "made" when it made any.
#
#   registry_certificates.sh FOLDER ADDRESS
set -eu
umask 077
cd "$1"
address=$2
days=3650

case $address in
    *[!0-9.]*) name=DNS:$address ;;
    *) name=IP:$address ;;
esac

# Whether a certificate is there, is for this address, and is valid for another month.
good() {
    [ -e "$1.crt" ] && openssl x509 -in "$1.crt" -noout -checkend 2592000 >/dev/null &&
        { [ "$1" != server ] || [ "$(cat address 2>/dev/null)" = "$name" ]; }
}

certificate() {
    kind=$1
    shift
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days "$days" \
        -subj "/CN=llmops.vllm registry $kind" -keyout "$kind.key.new" -out "$kind.crt.new" "$@" 2>openssl.log ||
        { cat openssl.log >&2; exit 1; }
    rm -f openssl.log
    mv "$kind.key.new" "$kind.key"
    # The key first: a certificate that is there has its key.
    mv "$kind.crt.new" "$kind.crt"
    chmod 0644 "$kind.crt"
    echo made
}

if ! good ca; then
    rm -f server.crt client.crt
    certificate ca -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
fi
if ! good server; then
    certificate server -CA ca.crt -CAkey ca.key -addext "subjectAltName=$name" \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=serverAuth
    echo "$name" >address
fi
if ! good client; then
    certificate client -CA ca.crt -CAkey ca.key \
        -addext basicConstraints=critical,CA:FALSE -addext extendedKeyUsage=clientAuth
fi
