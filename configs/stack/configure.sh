# Makes the data directory and writes nginx.conf into it, with the ports of this run. Repeating it does no harm.
set -eu
mkdir -p "$DATA"
data=$(cd "$DATA" && pwd)
sed -e "s|@FRONT_PORT@|$FRONT_PORT|g" -e "s|@WEB_PORT@|$WEB_PORT|g" -e "s|@DATA@|$data|g" nginx.conf.in > "$data/nginx.conf.new"
mv "$data/nginx.conf.new" "$data/nginx.conf"
