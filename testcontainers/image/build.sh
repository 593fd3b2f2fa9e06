#!/bin/bash
# Builds the image of one Kafka version without an image registry: a busybox userland from Debian's
# packages, a cut-down Debian OpenJDK 17, Kafka's jars from Maven Central, and a class data archive
# from one training run (it halves the CPU time of a broker's start).
#
#   build.sh KAFKA_VERSION WORK_DIR IMAGE [LABEL=VALUE...]
#
# Needs root, apt, a JDK 17 with jlink, mvn, and a running Docker. Says its steps on stderr.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=$1 work=$2 image=$3
shift 3
rootfs=$work/rootfs
kafka=$rootfs/opt/kafka
start=$(date +%s%N)
say() { printf '    %5d ms  %s\n' $((($(date +%s%N) - start) / 1000000)) "$*" >&2; }

rm -rf "$work"
mkdir -p "$rootfs" "$work/debs"

# ---- userland -------------------------------------------------------------------------------
chmod 777 "$work/debs" # apt downloads as its own user
(cd "$work/debs" && apt-get -qq download busybox-static libc6 zlib1g libgcc-s1 libstdc++6)
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/unpacked"; done
cp -a "$work/unpacked/." "$rootfs/"
rm -rf "$rootfs/usr/share"
for dir in bin sbin lib lib64; do # Debian 12's packages still have the unmerged layout
  mkdir -p "$rootfs/usr/$dir"
  if [ -e "$rootfs/$dir" ]; then
    cp -a "$rootfs/$dir/." "$rootfs/usr/$dir/"
    rm -rf "${rootfs:?}/$dir"
  fi
  ln -s "usr/$dir" "$rootfs/$dir"
done
rm -rf "$rootfs"/usr/lib/*-linux-gnu/{gconv,audit}
mkdir -p "$rootfs"/{etc,tmp,proc,sys,dev,root,etc/kafka/docker,etc/kafka/secrets,var/lib/kafka/data}
chmod 1777 "$rootfs/tmp"
for applet in $(chroot "$rootfs" /bin/busybox --list); do
  if [ ! -e "$rootfs/bin/$applet" ]; then ln -s busybox "$rootfs/bin/$applet"; fi
done
printf 'root:x:0:0:root:/root:/bin/sh\nappuser:x:1000:1000::/tmp:/bin/sh\n' >"$rootfs/etc/passwd"
printf 'root:x:0:\nappuser:x:1000:\n' >"$rootfs/etc/group"
echo 'hosts: files dns' >"$rootfs/etc/nsswitch.conf"
say "userland of Debian packages"

# ---- Java -----------------------------------------------------------------------------------
jdk=${OTTLA_JDK:-/usr/lib/jvm/java-17-openjdk-$(dpkg --print-architecture)}
modules=java.base,java.desktop,java.instrument,java.logging,java.management,java.management.rmi,java.naming
modules+=,java.net.http,java.security.jgss,java.security.sasl,java.sql,java.xml,jdk.crypto.ec,jdk.jfr
modules+=,jdk.management,jdk.management.agent,jdk.naming.dns,jdk.net,jdk.security.auth,jdk.security.jgss
modules+=,jdk.unsupported,jdk.zipfs
"$jdk/bin/jlink" --add-modules "$modules" --no-header-files --no-man-pages --strip-java-debug-attributes --output "$rootfs/opt/java"
rm -f "$rootfs"/opt/java/lib/{libawt*,libfontmanager.so,libfreetype.so,libmlib_image.so,liblcms.so,libjavajpeg.so,libsplashscreen.so,libjsound.so}
ln -s ../../opt/java/bin/java "$rootfs/usr/bin/java"
say "Java runtime"

# ---- Kafka ----------------------------------------------------------------------------------
jars() { # jars VERSION PROFILES DIR
  mvn -B -q -f "$here/pom.xml" -P "$2" -Dkafka.version="$1" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$3" >"$work/mvn.log" 2>&1 || { cat "$work/mvn.log" >&2; return 1; }
}
classpath() { (cd "$rootfs" && printf '/%s\n' "opt/kafka/$1"/*.jar | paste -sd:); }
mkdir -p "$kafka"/{bin,config,logs}
logging=log4j2
case $version in 3.*) logging= ;; esac
if [ "$version" = 4.4.0 ]; then
  # Maven Central has no kafka-tools 4.4.0: the tools of 4.3.1, apart, so that jars don't mix.
  jars "$version" "$logging" "$kafka/libs"
  jars 4.3.1 "tools,$logging" "$kafka/tools-libs"
else
  jars "$version" "tools${logging:+,$logging}" "$kafka/libs"
fi
mkdir "$work/classes"
"$jdk/bin/javac" --release 17 -nowarn -proc:none -cp "$kafka/libs/*" -d "$work/classes" "$here/Boot.java"
(cd "$work/classes" && "$jdk/bin/jar" cf "$kafka/libs/boot.jar" Boot.class)
classpath libs >"$kafka/classpath"
tools=libs
if [ -d "$kafka/tools-libs" ]; then tools=tools-libs; fi
classpath "$tools" >"$kafka/tools-classpath"
install -m 755 "$here/run" "$rootfs/etc/kafka/docker/run"
install -m 755 "$here/kafka-run-class.sh" "$kafka/bin/"
install -m 644 "$here"/*log4j*.properties "$kafka/config/"
for jar in "$kafka/$tools"/kafka*.jar; do "$jdk/bin/jar" tf "$jar"; done >"$work/classes.txt"
grep -v '^#' "$here/tools.txt" | while read -r tool candidates; do
  for class in $candidates; do
    if grep -qxF "${class//.//}.class" "$work/classes.txt"; then
      printf '#!/bin/sh\nexec /opt/kafka/bin/kafka-run-class.sh %s "$@"\n' "$class" >"$kafka/bin/$tool.sh"
      chmod 755 "$kafka/bin/$tool.sh"
      break
    fi
  done
done
say "Kafka $version"

# ---- class data archive ---------------------------------------------------------------------
# In namespaces of its own: the ports are no one else's, the mounts end with it, nothing outlives it.
unshare -mnp --fork --kill-child bash -c '
  mount -t proc proc "$1/proc" && mount --bind /dev "$1/dev" && exec chroot "$1" /bin/sh -s' - "$rootfs" \
  <"$here/train.sh" >"$work/train.log" 2>&1 || { tail -n 40 "$work/train.log" >&2; exit 1; }
say "class data archive"

# ---- image ----------------------------------------------------------------------------------
chown 1000:1000 "$kafka"
chown -R 1000:1000 "$rootfs/var/lib/kafka" "$kafka/config" "$kafka/logs" "$rootfs/etc/kafka/secrets"
mkdir "$work/context"
tar -C "$rootfs" -cf "$work/context/rootfs.tar" .
cp "$here/Dockerfile" "$work/context/"
labels=()
for label in "$@"; do labels+=(--label "$label"); done
# The classic builder: a newer docker command has no BuildKit without its buildx plug-in.
DOCKER_BUILDKIT=0 docker build -q "${labels[@]}" -t "$image" "$work/context" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; exit 1; }
rm -rf "$work"
say "image $image"
