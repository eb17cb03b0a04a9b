#!/bin/sh
# The app's way up: a snapshot by pgkeep, then the migration, then the app. Without the first there is no second.
set -e
node "${PGKEEP_HOOK:-/usr/local/lib/pgkeep/hook.mjs}" main app --label "commit=${GIT_SHA:-unknown}"
npx prisma migrate deploy
exec "$@"
