using Fleet.Contracts.Vms;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Observe;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.ControlPlane;

/// <summary>What this kernel lets the agent do, found out by doing it on throw-away memory. Names are stable; values are <c>yes</c> or <c>no: reason</c>.</summary>
public static class CapabilityProbe
{
    /// <summary>Poison markers on memfd memory, the mechanism of policy <c>marker</c>.</summary>
    public const string MarkerOnMemfd = "policy.marker.memfd";

    /// <summary>Known to the control plane, and not built: a migration that asks for it is denied before anything is started.</summary>
    private const string FirecrackerAttachment = $"attach.{AttachKinds.Firecracker}";

    private const string GuaranteedZap =
        "no: the madvise for it was never merged into Linux; punch-hole or dont-need of a registered range, each arming verified in the page tables, serves in its place";

    public static IReadOnlyDictionary<string, string> Table()
    {
        var table = new Dictionary<string, string>(StringComparer.Ordinal) { [FirecrackerAttachment] = "no: this agent attaches by handoff and qemu only" };
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
        table["userfaultfd.missing-hugetlbfs"] = YesNo(features, UffdFeatures.MissingHugetlbfs, "Linux 4.11");
        table["userfaultfd.minor-hugetlbfs"] = YesNo(features, UffdFeatures.MinorHugetlbfs, "Linux 5.13");
        var cells = EnforcementTable.OfThisHost;
        foreach (var policy in Enum.GetValues<EnforcementPolicy>())
        {
            foreach (var memory in Enum.GetValues<MemoryClass>())
            {
                var whyNot = cells.WhyNot(memory, policy);
                table[$"policy.{EnforcementCell.NameOf(policy)}.{EnforcementCell.NameOf(memory)}"] = whyNot is null ? "yes" : Short($"no: {whyNot}");
            }
        }

        foreach (var state in cells.Cells)
        {
            table[state.Cell.Name] = state.IsAble ? "yes" : Short($"no: {state.WhyNot}");
        }

        table["enforce.guaranteed-zap"] = GuaranteedZap;
        ObservationProbe.AddTo(table);
        DetectionProbe.AddTo(table);
        var hidden = MemoryFileUsers.CountHidden();
        table["device-dma.processes"] = hidden == 0 ? "yes" : FormattableString.Invariant($"no: {hidden} processes may not be looked at");
        return table;
    }

    // The API takes values of at most 200 characters.
    private static string Short(string value) => value.Length <= 200 ? value : $"{value[..197]}...";

    private static string YesNo(UffdFeatures features, UffdFeatures wanted, string since) =>
        (features & wanted) != 0 ? "yes" : $"no: needs {since}";
}
