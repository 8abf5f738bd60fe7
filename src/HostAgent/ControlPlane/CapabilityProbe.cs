using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Observe;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>What this kernel lets the agent do, found out by doing it on throw-away memory. Names are stable; values are <c>yes</c> or <c>no: reason</c>.</summary>
public static class CapabilityProbe
{
    /// <summary>Poison markers on memfd memory, the mechanism of policy <c>marker</c>.</summary>
    public const string MarkerOnMemfd = "policy.marker.memfd";

    public static IReadOnlyDictionary<string, string> Table()
    {
        var table = new Dictionary<string, string>(StringComparer.Ordinal);
        UffdFeatures features;
        try
        {
            features = UserfaultfdHandle.Probe();
        }
        catch (LinuxException exception)
        {
            table["userfaultfd"] = $"no: {exception.Call}: {exception.Errno}";
            return table;
        }

        table["userfaultfd"] = "yes";
        table["userfaultfd.poison"] = YesNo(features, UffdFeatures.Poison, "Linux 6.6");
        table["userfaultfd.missing-shmem"] = YesNo(features, UffdFeatures.MissingShmem, "Linux 4.11");
        table["userfaultfd.minor-shmem"] = YesNo(features, UffdFeatures.MinorShmem, "Linux 5.14");
        table[MarkerOnMemfd] = TryMarker();
        ObservationProbe.AddTo(table);
        DetectionProbe.AddTo(table);
        var hidden = MemoryFileUsers.CountHidden();
        table["device-dma.processes"] = hidden == 0 ? "yes" : FormattableString.Invariant($"no: {hidden} processes may not be looked at");
        return table;
    }

    /// <summary>Arms a page of its own and reads it, as a guest's page would be.</summary>
    private static string TryMarker()
    {
        try
        {
            using var file = MemoryFile.Create("fleet-probe", 4096);
            using var mapping = MemoryMapping.MapShared(file.Descriptor, 0, 4096);
            using var userfaultfd = UserfaultfdHandle.Create();
            userfaultfd.Handshake(UffdFeatures.Poison | UffdFeatures.MissingShmem | UffdFeatures.MinorShmem);
            userfaultfd.Register(mapping.Address, 4096, UffdRegisterMode.Missing | UffdRegisterMode.Minor);
            file.PunchHole(0, 4096);
            var poisoned = userfaultfd.Poison(mapping.Address, 4096);
            if (!poisoned.Succeeded)
            {
                return $"no: UFFDIO_POISON: {poisoned.Error}";
            }

            using var pageMap = PageMap.Open(Environment.ProcessId);
            if (!pageMap.Read(mapping.Address).IsPoisonMarker)
            {
                return "no: /proc/PID/pagemap does not show the marker";
            }

            return ProcessMemory.Read(Environment.ProcessId, mapping.Address, new byte[8]) == Errno.EFAULT ? "yes" : "no: the page could be read";
        }
        catch (LinuxException exception)
        {
            return $"no: {exception.Call}: {exception.Errno}";
        }
    }

    private static string YesNo(UffdFeatures features, UffdFeatures wanted, string since) =>
        (features & wanted) != 0 ? "yes" : $"no: needs {since}";
}
