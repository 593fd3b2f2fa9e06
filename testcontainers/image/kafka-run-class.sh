#!/bin/sh
# kafka-run-class.sh CLASS ARGUMENTS... : what every tool script here calls.
K=/opt/kafka
# shellcheck disable=SC2046,SC2086
exec java ${KAFKA_TOOL_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
  ${KAFKA_CDS_OPTS-$(cat $K/tools-cds.opts 2>/dev/null)} ${KAFKA_OPTS:-} \
  -Dlog4j2.configurationFile=$K/config/tools-log4j2.properties \
  -Dlog4j.configuration=file:$K/config/tools-log4j.properties \
  -cp "$(cat $K/tools-classpath)" "$@"
