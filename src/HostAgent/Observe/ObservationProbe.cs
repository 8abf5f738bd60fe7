using Fleet.Linux;
using Fleet.Linux.Tracing;

namespace Fleet.HostAgent.Observe;

/// <summary>Whether this host's kernel shows accesses to poisoned pages, found out by having it do so.</summary>
public static class ObservationProbe
{
    public const string Owner = "fleet-probe";

    /// <summary>Adds <c>observation</c> (<c>kernel</c>, or <c>vmm</c> where only VMMs can tell) and a row for each tracepoint.</summary>
    public static void AddTo(IDictionary<string, string> table)
    {
        // A real address, so that the filter is one that the kernel understands, and nobody's: nothing is recorded.
        var kvm = Try(KvmPageFaultEvent.Name, $"({KvmPageFaultEvent.AddressField}>=0x1000&&{KvmPageFaultEvent.AddressField}<0x1000)");
        var user = Try(UserPageFaultEvent.Name, $"({UserPageFaultEvent.AddressField}>=0x1000&&{UserPageFaultEvent.AddressField}<0x1000)");
        table["observation"] = kvm == "yes" || user == "yes" ? "kernel" : "vmm";
        table["observation.kvm-page-fault"] = kvm;
        table["observation.user-page-fault"] = user;
    }

    private static string Try(TraceEvent traceEvent, string filter)
    {
        try
        {
            using var fs = TraceFs.Open();
            if (!fs.HasEvent(traceEvent))
            {
                return $"no: the kernel has no tracepoint {traceEvent}";
            }

            using var instance = fs.Create(Owner, "events");
            instance.Enable(traceEvent, filter);
            return "yes";
        }
        catch (LinuxException exception)
        {
            return $"no: {exception.Call}: {exception.Errno}";
        }
    }
}
