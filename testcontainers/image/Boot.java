import java.io.IOException;
import java.io.PrintStream;
import java.io.Writer;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.Set;

/**
 * Starts one Kafka node from KAFKA_* environment variables, named as for the apache/kafka image:
 * KAFKA_A_B_C is a.b.c, where "___" stands for "-" and "__" for "_".
 *
 * The storage is formatted first, in this same JVM, which saves the start of a second one;
 * storage that is formatted already is used as it is. CLUSTER_ID is the id it gets.
 *
 * The classes of the broker and of the storage tool are the same from Kafka 3.9 to 4.4.
 */
public final class Boot {
    /** Variables for the JVM and the scripts: not broker settings. */
    private static final Set<String> NOT_SETTINGS = Set.of(
        "KAFKA_HOME", "KAFKA_HEAP_OPTS", "KAFKA_TOOL_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_CDS_OPTS",
        "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_JMX_OPTS", "KAFKA_JMX_PORT", "KAFKA_GC_LOG_OPTS",
        "KAFKA_LOG4J_OPTS", "KAFKA_LOG4J_LOGGERS", "KAFKA_LOG4J_ROOT_LOGLEVEL");

    private static final Path SETTINGS = Path.of("/opt/kafka/config/server.properties");

    private Boot() {}

    public static void main(String[] args) throws Throwable {
        Properties settings = settings(System.getenv());
        try (Writer w = Files.newBufferedWriter(SETTINGS)) {
            settings.store(w, "from the environment");
        }
        String dir = settings.getProperty("log.dirs").split(",")[0].trim();
        if (!Files.exists(Path.of(dir, "meta.properties"))) {
            int status = format();
            if (status != 0) {
                System.exit(status);
            }
        }
        kafka.Kafka.main(new String[] {SETTINGS.toString()});
    }

    static Properties settings(Map<String, String> environment) throws IOException {
        Properties p = new Properties();
        p.setProperty("log.dirs", "/var/lib/kafka/data");
        environment.forEach((name, value) -> {
            if (name.startsWith("KAFKA_") && !NOT_SETTINGS.contains(name)) {
                p.setProperty(settingName(name), value);
            }
        });
        return p;
    }

    static String settingName(String variable) {
        return variable.substring("KAFKA_".length()).toLowerCase(Locale.ROOT)
            .replace("___", "\u0000").replace("__", "\u0001").replace('_', '.')
            .replace('\u0000', '-').replace('\u0001', '_');
    }

    private static int format() throws Throwable {
        String id = System.getenv().getOrDefault("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw");
        String[] args = {"format", "--ignore-formatted", "-t", id, "-c", SETTINGS.toString()};
        try {
            return (Integer) Class.forName("kafka.tools.StorageTool")
                .getMethod("execute", String[].class, PrintStream.class).invoke(null, args, System.out);
        } catch (InvocationTargetException e) {
            throw e.getCause();
        }
    }
}
