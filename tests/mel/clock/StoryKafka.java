import java.io.RandomAccessFile;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.util.Properties;
import java.util.function.Supplier;
import kafka.server.KafkaConfig;
import kafka.server.KafkaRaftServer;
import org.apache.kafka.common.utils.Time;

/** Kafka itself, whose wall clock is the machine's plus what the story's clock file says. */
class StoryKafka {
    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        try (var reader = new java.io.FileReader(arguments[0])) {
            properties.load(reader);
        }
        var server = new KafkaRaftServer(KafkaConfig.fromProps(properties, false), new StoryTime(System.getProperty("story.clock")));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdown));
        server.startup();
        server.awaitShutdown();
    }

    private static class StoryTime implements Time {
        private final MappedByteBuffer offset;

        StoryTime(String path) throws Exception {
            try (var file = new RandomAccessFile(path, "r")) {
                offset = file.getChannel().map(FileChannel.MapMode.READ_ONLY, 0, 8);
            }
        }

        @Override
        public long milliseconds() {
            return System.currentTimeMillis() + offset.getLong(0);
        }

        @Override
        public long nanoseconds() {
            return System.nanoTime();
        }

        @Override
        public void sleep(long milliseconds) {
            Time.SYSTEM.sleep(milliseconds);
        }

        @Override
        public void waitObject(Object object, Supplier<Boolean> condition, long deadlineMs) throws InterruptedException {
            Time.SYSTEM.waitObject(object, condition, deadlineMs - offset.getLong(0));
        }
    }
}
