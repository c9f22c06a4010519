import java.net.InetAddress;
import java.net.UnknownHostException;

/** One InetAddress lookup. Prints "ok ADDRESS..." or "error REASON". */
public class Lookup {
    public static void main(String[] arguments) {
        try {
            StringBuilder line = new StringBuilder("ok");
            for (InetAddress address : InetAddress.getAllByName(arguments[0])) {
                line.append(' ').append(address.getHostAddress());
            }
            System.out.println(line);
        } catch (UnknownHostException error) {
            boolean temporary = String.valueOf(error.getMessage()).contains("Temporary");
            System.out.println(temporary ? "error temporary" : "error not-found");
        }
    }
}
