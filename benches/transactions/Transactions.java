// Measures transactions of Kafka's Java client: see `run`, and examples/bench_transactions.rs for
// the same loop with ours.
import java.util.Arrays;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.FeatureUpdate;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.UpdateFeaturesOptions;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Transactions {
    public static void main(String[] args) throws Exception {
        String bootstrap = args[1];
        if (args[0].equals("finalize")) {
            choose(bootstrap, Short.parseShort(args[2]));
            return;
        }
        double seconds = Double.parseDouble(args[2]);
        for (int partitions : numbers(args[3])) {
            String topic = "java-" + partitions + "-" + System.nanoTime();
            try (Admin admin = admin(bootstrap)) {
                Optional<Short> replicas = Optional.of((short) 1);
                NewTopic created = new NewTopic(topic, Optional.of(partitions), replicas);
                admin.createTopics(java.util.List.of(created)).all().get();
            }
            for (int records : numbers(args[4])) {
                measure(bootstrap, topic, partitions, records, seconds);
            }
        }
        System.exit(0);
    }

    static void measure(
            String bootstrap, String topic, int partitions, int records, double seconds) {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap,
            "transactional.id", topic + "-" + records);
        byte[] value = new byte[100];
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, bytes, bytes)) {
            producer.initTransactions();
            long next = 0;
            // The first second is that of compilers and connections.
            long warm = System.nanoTime() + 1_000_000_000L;
            while (System.nanoTime() < warm) {
                next = once(producer, topic, value, next, partitions, records);
            }
            long[] took = new long[1 << 20];
            int count = 0;
            long began = System.nanoTime();
            long end = began + (long) (seconds * 1e9);
            long now = began;
            while (now < end && count < took.length) {
                next = once(producer, topic, value, next, partitions, records);
                long after = System.nanoTime();
                took[count++] = after - now;
                now = after;
            }
            took = Arrays.copyOf(took, count);
            Arrays.sort(took);
            System.out.printf(
                "{\"client\":\"java\",\"partitions\":%d,\"records\":%d,\"transactions_per_s\":%.0f,"
                    + "\"p50_ms\":%.2f,\"p99_ms\":%.2f}%n",
                partitions, records, count / ((now - began) / 1e9),
                took[count / 2] / 1e6, took[count * 99 / 100] / 1e6);
        }
    }

    static long once(
            KafkaProducer<byte[], byte[]> producer, String topic, byte[] value, long next,
            int partitions, int records) {
        producer.beginTransaction();
        for (int i = 0; i < records; i++) {
            producer.send(new ProducerRecord<>(topic, (int) (next++ % partitions), null, value));
        }
        producer.commitTransaction();
        return next;
    }

    static int[] numbers(String list) {
        return Arrays.stream(list.split(",")).mapToInt(Integer::parseInt).toArray();
    }

    static Admin admin(String bootstrap) {
        return Admin.create(Map.<String, Object>of("bootstrap.servers", bootstrap));
    }

    static void choose(String bootstrap, short version) throws Exception {
        FeatureUpdate.UpgradeType how = version < 2
            ? FeatureUpdate.UpgradeType.SAFE_DOWNGRADE
            : FeatureUpdate.UpgradeType.UPGRADE;
        try (Admin admin = admin(bootstrap)) {
            Map<String, FeatureUpdate> update =
                Map.of("transaction.version", new FeatureUpdate(version, how));
            admin.updateFeatures(update, new UpdateFeaturesOptions()).all().get();
        }
    }
}
