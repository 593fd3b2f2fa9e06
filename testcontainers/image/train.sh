# Runs in a chroot of the image: one broker and a few tools, with the JVM told to archive the classes
# that were loaded. The archive holds the class path, so it must be made at the final paths.
set -eu
export PATH=/opt/kafka/bin:/bin
ip link set lo up
java -Xshare:dump -XX:+UseSerialGC >/dev/null 2>&1

export KAFKA_NODE_ID=1 KAFKA_PROCESS_ROLES=broker,controller KAFKA_LOG_DIRS=/tmp/train
export KAFKA_LISTENERS=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
export KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER KAFKA_CONTROLLER_QUORUM_VOTERS=1@127.0.0.1:9093
export KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR=1 KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS=1
export KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR=1 KAFKA_TRANSACTION_STATE_LOG_MIN_ISR=1
KAFKA_CDS_OPTS=-XX:ArchiveClassesAtExit=/opt/kafka/broker.jsa /etc/kafka/docker/run >/tmp/train.log 2>&1 &
broker=$!
tries=0
until grep -q 'Kafka Server started' /tmp/train.log; do
  tries=$((tries + 1))
  if [ $tries -gt 600 ] || ! kill -0 $broker; then cat /tmp/train.log; exit 1; fi
  sleep 0.2
done

at="--bootstrap-server 127.0.0.1:9092"
if cmp -s /opt/kafka/classpath /opt/kafka/tools-classpath; then
  tools=broker
  export KAFKA_CDS_OPTS=-Xshare:auto
else
  tools=tools
  export KAFKA_CDS_OPTS=-XX:ArchiveClassesAtExit=/opt/kafka/tools.jsa
fi
timeout 60 kafka-topics.sh $at --create --topic t --partitions 3
export KAFKA_CDS_OPTS=-Xshare:auto
printf 'a\nb\n' | timeout 60 kafka-console-producer.sh $at --topic t
timeout 60 kafka-console-consumer.sh $at --topic t --group g --from-beginning --max-messages 2
kill -TERM $broker
wait $broker || true
rm -rf /tmp/train /tmp/train.log /tmp/hsperfdata_root /opt/kafka/config/server.properties
archive() { echo "-XX:SharedArchiveFile=/opt/kafka/$1.jsa -Xshare:auto -Xlog:cds=off -Xlog:cds+dynamic=off"; }
ls /opt/kafka/broker.jsa "/opt/kafka/$tools.jsa"
archive broker >/opt/kafka/cds.opts
archive "$tools" >/opt/kafka/tools-cds.opts
