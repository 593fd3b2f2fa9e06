import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

import org.apache.kafka.clients.consumer.ConsumerGroupMetadata;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupAssignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.GroupSubscription;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.consumer.internals.AbstractStickyAssignor;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;

/**
 * What Java's assignors make of the cases on standard input, and the bytes that its members write.
 * src/group/assignor/java_tests.rs writes the cases and reads the answers. A case:
 *
 *   T name count racks-of-partition-0;racks-of-partition-1;...
 *   M id instance rack generation topics owned sticky-user-data cooperative-user-data
 *   E
 *
 * Fields are separated by blanks, lists by commas; "-" stands for none and "+" for an empty list.
 * The answer is a line for each assignor, and one with the bytes. A result that gives a partition
 * to nobody, to two members or to one that does not subscribe, or that is an exception, is told as
 * "invalid".
 */
public class Assignments {
    private record Member(String id, Optional<String> instance, Optional<String> rack,
                          int generation, List<String> topics, List<TopicPartition> owned,
                          ByteBuffer sticky, ByteBuffer cooperative) {
        Subscription subscription(ByteBuffer userData, boolean owns) {
            List<TopicPartition> kept = owns ? owned : Collections.emptyList();
            ByteBuffer data = userData == null ? null : userData.duplicate();
            Subscription subscription = new Subscription(topics, data, kept, generation, rack);
            subscription.setGroupInstanceId(instance);
            return subscription;
        }
    }

    private final List<PartitionInfo> partitions = new ArrayList<>();
    private final Map<String, Node> nodes = new HashMap<>();
    private final List<Member> members = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(
            new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        Assignments one = new Assignments();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] fields = line.split(" ");
            switch (fields[0]) {
                case "T" -> one.topic(fields[1], Integer.parseInt(fields[2]), fields[3]);
                case "M" -> one.member(fields);
                default -> {
                    one.answer(out);
                    one = new Assignments();
                }
            }
        }
        out.flush();
    }

    private void topic(String name, int count, String racks) {
        String[] all = racks.split(";", -1);
        for (int number = 0; number < count; number++) {
            List<Node> replicas = new ArrayList<>();
            for (String rack : list(all[number]))
                replicas.add(nodes.computeIfAbsent(rack,
                    r -> new Node(nodes.size(), "h", 9092, r.equals("none") ? null : r)));
            Node[] array = replicas.toArray(new Node[0]);
            Node leader = array.length == 0 ? Node.noNode() : array[0];
            partitions.add(new PartitionInfo(name, number, leader, array, array));
        }
    }

    private void member(String[] f) {
        List<TopicPartition> owned = new ArrayList<>();
        for (String partition : list(f[6])) {
            int colon = partition.indexOf(':');
            owned.add(new TopicPartition(partition.substring(0, colon),
                Integer.parseInt(partition.substring(colon + 1))));
        }
        members.add(new Member(f[1], optional(f[2]), optional(f[3]),
            optional(f[4]).map(Integer::parseInt).orElse(-1), list(f[5]), owned, bytes(f[7]),
            bytes(f[8])));
    }

    private void answer(PrintStream out) {
        out.println(assign(new RangeAssignor(), false));
        out.println(assign(new RoundRobinAssignor(), false));
        out.println(assign(new StickyAssignor(), false));
        out.println(assign(new CooperativeStickyAssignor(), true));
        out.println(bytesOfMembers());
    }

    private String assign(ConsumerPartitionAssignor assignor, boolean cooperative) {
        Cluster cluster = new Cluster("c", nodes.values(), partitions, Collections.emptySet(),
            Collections.emptySet());
        Map<String, Subscription> subscriptions = new HashMap<>();
        for (Member member : members) {
            ByteBuffer data = cooperative ? member.cooperative : member.sticky;
            subscriptions.put(member.id, member.subscription(data, cooperative));
        }
        try {
            GroupSubscription group = new GroupSubscription(subscriptions);
            // What is wrong with a partition does not show if it is held back.
            if (cooperative && text(cluster, new AtOnce().assign(cluster, group), true) == null)
                return "invalid";
            String text = text(cluster, assignor.assign(cluster, group), !cooperative);
            return text == null ? "invalid" : text;
        } catch (RuntimeException e) {
            return "invalid";
        }
    }

    /** Null if it cannot be acted upon. */
    private String text(Cluster cluster, GroupAssignment assignment, boolean whole) {
        Map<String, Assignment> result = assignment.groupAssignment();
        Set<TopicPartition> given = new HashSet<>();
        StringBuilder text = new StringBuilder();
        for (Member member : members) {
            Map<String, Set<Integer>> sorted = new TreeMap<>();
            for (TopicPartition partition : result.get(member.id).partitions()) {
                if (!given.add(partition) || !member.topics.contains(partition.topic()))
                    return null;
                sorted.computeIfAbsent(partition.topic(), t -> new TreeSet<>())
                    .add(partition.partition());
            }
            text.append(member.id).append('=').append(sorted).append(' ');
        }
        Set<String> topics = new HashSet<>();
        members.forEach(member -> topics.addAll(member.topics));
        int wanted = 0;
        for (PartitionInfo partition : partitions)
            wanted += topics.contains(partition.topic()) ? 1 : 0;
        for (TopicPartition partition : given)
            if (cluster.partition(partition) == null)
                return null;
        return whole && given.size() != wanted ? null : text.toString();
    }

    private static class Cooperative extends CooperativeStickyAssignor {
        MemberData data(Subscription subscription) {
            return memberData(subscription);
        }
    }

    /** The cooperative assignor without what it holds back. */
    private static class AtOnce extends AbstractStickyAssignor {
        private final Cooperative cooperative = new Cooperative();

        @Override
        protected MemberData memberData(Subscription subscription) {
            if (subscription.userData() != null)
                subscription.userData().rewind();
            MemberData data = cooperative.data(subscription);
            if (subscription.userData() != null)
                subscription.userData().rewind();
            return data;
        }

        @Override
        public String name() {
            return "at-once";
        }
    }

    /** Subscription, assignment, user data of both sticky assignors. */
    private String bytesOfMembers() {
        StringBuilder text = new StringBuilder();
        for (Member member : members) {
            Subscription subscription = member.subscription(member.sticky, true);
            Assignment assignment = new Assignment(member.owned, member.cooperative);
            StickyAssignor sticky = new StickyAssignor();
            CooperativeStickyAssignor cooperative = new CooperativeStickyAssignor();
            ConsumerGroupMetadata group =
                new ConsumerGroupMetadata("g", member.generation, member.id, member.instance);
            if (member.generation >= 0) {
                sticky.onAssignment(assignment, group);
                cooperative.onAssignment(assignment, group);
            }
            Set<String> topics = new HashSet<>(member.topics);
            for (ByteBuffer bytes : Arrays.asList(
                ConsumerProtocol.serializeSubscription(subscription),
                ConsumerProtocol.serializeAssignment(assignment),
                sticky.subscriptionUserData(topics), cooperative.subscriptionUserData(topics)))
                text.append(hex(bytes)).append(' ');
        }
        return text.toString();
    }

    private static List<String> list(String text) {
        return text.equals("+") ? Collections.emptyList() : List.of(text.split(","));
    }

    private static Optional<String> optional(String text) {
        return text.equals("-") ? Optional.empty() : Optional.of(text);
    }

    private static ByteBuffer bytes(String text) {
        if (text.equals("-"))
            return null;
        return ByteBuffer.wrap(text.equals("+") ? new byte[0] : HexFormat.of().parseHex(text));
    }

    private static String hex(ByteBuffer bytes) {
        if (bytes == null)
            return "-";
        byte[] copy = new byte[bytes.remaining()];
        bytes.duplicate().get(copy);
        return HexFormat.of().formatHex(copy);
    }
}
