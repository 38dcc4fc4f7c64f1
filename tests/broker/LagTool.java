import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;

/** Kafka's own tool, asked many times by one process: a line on standard input is one question about a group. */
class LagTool {
    public static void main(String[] arguments) throws Exception {
        var lines = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
        for (String group; (group = lines.readLine()) != null; ) {
            ConsumerGroupCommand.main(
                new String[] {"--bootstrap-server", arguments[0], "--describe", "--group", group});
            System.out.println("END");
        }
    }
}
