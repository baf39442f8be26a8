#!/usr/bin/env bash
# Makes a private certificate authority (CA) and the certificates by which the members of one
# cluster know each other. `certificates.sh --help` tells more.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: certificates.sh [--days N] DIR NAME...

Makes NAME.key and NAME.pem in DIR for each NAME: order-1, catalog-1, front-1 and so on for
members, `client` for the commands of twstock. The first time it makes the CA, too: ca.key
and ca.pem, which is good for ten years.

Run it again to renew certificates: keys that are there are kept. To have a new key, remove
the old one before.

  --days N         how long the certificates are good (default: 365)
  --help           show this

Copy ca.pem and the two files of its own to each member. ca.key stays where no member is:
whoever has it can be any of them.

Exit status: 0 done, 1 openssl failed, 2 wrong usage.
TEXT
}

wrong_usage() {
    printf 'certificates.sh: %s\nTry certificates.sh --help.\n' "$1" >&2
    exit 2
}

days=365
while [[ $# -gt 0 ]]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --days)
            [[ ${2-} =~ ^[1-9][0-9]{0,4}$ ]] || wrong_usage "--days: expected a number from 1 up"
            days=$2
            shift 2
            ;;
        -*) wrong_usage "unknown option $1" ;;
        *) break ;;
    esac
done
[[ $# -ge 2 ]] || wrong_usage "expected a directory, and at least one name"
directory=$1
shift
for name in "$@"; do
    [[ $name =~ ^((order|catalog|front)-[1-9][0-9]*|client)$ ]] ||
        wrong_usage "$name: expected order-N, catalog-N, front-N or client"
done
command -v openssl >/dev/null || wrong_usage "openssl is not installed"

umask 077
mkdir -p "$directory"
work=$(mktemp -d "$directory/.new.XXXXXX")
trap 'rm -rf "$work"' EXIT

quietly() {
    "$@" >"$work/said" 2>&1 || {
        cat "$work/said" >&2
        exit 1
    }
}

make_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

make_ca() {
    make_key "$work/ca.key"
    cat >"$work/ca.conf" <<'TEXT'
[req]
distinguished_name = name
x509_extensions = ca
[name]
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
TEXT
    quietly openssl req -x509 -new -config "$work/ca.conf" -key "$work/ca.key" -days 3650 \
        -subj "/CN=twstock CA $(openssl rand -hex 4)" -out "$work/ca.pem"
    mv "$work/ca.key" "$work/ca.pem" "$directory"
    chmod 644 "$directory/ca.pem"
}

# The name that counts is the subjectAltName.
make_certificate() {
    local name=$1
    if [[ ! -e $directory/$name.key ]]; then
        make_key "$work/key"
        mv "$work/key" "$directory/$name.key"
    fi
    cat >"$work/extensions" <<TEXT
subjectAltName = DNS:$name
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
TEXT
    quietly openssl req -new -key "$directory/$name.key" -subj "/CN=$name" -out "$work/request"
    quietly openssl x509 -req -in "$work/request" -CA "$directory/ca.pem" \
        -CAkey "$directory/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
        -extfile "$work/extensions" -out "$work/pem"
    chmod 644 "$work/pem"
    mv "$work/pem" "$directory/$name.pem" # at once: a member may be reading it
}

if [[ ! -e $directory/ca.pem ]]; then
    make_ca
elif [[ ! -e $directory/ca.key ]]; then
    printf 'certificates.sh: %s: the CA is there, but not its key\n' "$directory/ca.key" >&2
    exit 1
fi
for name in "$@"; do
    make_certificate "$name"
done
openssl x509 -checkend $((days * 86400)) -noout -in "$directory/ca.pem" >/dev/null || {
    printf 'certificates.sh: %s/ca.pem ends before that, and all certificates with it\n' "$directory"
    printf 'Replace the CA in time: docs/operations.md, TLS between members.\n'
} >&2
printf 'certificates of %s in %s, good for %s days\n' "$*" "$directory" "$days"
