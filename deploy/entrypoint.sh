#!/bin/sh
# Make the workspace (a volume, NTULM_WORKSPACE) hold this image's code, then run the command.
# Its data, params.yaml, forget.txt and dvc.lock stay. A new image waits until no run writes to the workspace.
# NTULM_DVC_REMOTE is the address of the DVC remote; its credentials stay in the environment.
set -eu
source=${NTULM_SOURCE:-/opt/ntulm}
cd "$NTULM_WORKSPACE"
mkdir -p .dvc/tmp

bring_the_code() {
    rm -rf ntulm flows deploy worlds
    tar --create --exclude=./params.yaml --exclude=./forget.txt --exclude=./dvc.lock --exclude=./.image --directory="$source" . |
        tar --extract --no-overwrite-dir # the workspace itself may belong to root, and be ours by its group alone
    for file in params.yaml forget.txt dvc.lock; do
        [ -e "$file" ] || [ ! -e "$source/$file" ] || cp "$source/$file" "$file"
    done
    {
        printf '[core]\n    no_scm = true\n'
        [ -z "${NTULM_DVC_REMOTE:-}" ] || {
            printf '    remote = store\n'
            printf '[%sremote "store"%s]\n    url = %s\n' "'" "'" "$NTULM_DVC_REMOTE"
            [ -z "${AWS_ENDPOINT_URL:-}" ] || printf '    endpointurl = %s\n' "$AWS_ENDPOINT_URL"
        }
    } > .dvc/config.local
    printf '%s\n' "$1" > .image
}

image="$(cat "$source/.image") ${NTULM_DVC_REMOTE:-} ${AWS_ENDPOINT_URL:-}"
if [ "$(cat .image 2>/dev/null || true)" != "$image" ]; then
    (
        flock 9
        [ "$(cat .image 2>/dev/null || true)" = "$image" ] || bring_the_code "$image"
    ) 9>> .dvc/tmp/flows.lock
fi
exec "$@"
