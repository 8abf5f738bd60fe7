using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.Contracts.Migrations;
using Fleet.Contracts.Vms;
using Fleet.HostAgent.Gate;
using Fleet.Linux.Processes;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>A VMM with a barrier whose memory is this process's, and the views of it that the control plane sends to this host.</summary>
public abstract class GateAgentFixture : IDisposable
{
    /// <summary>A VMM instance of the other host.</summary>
    internal const string Other = "boot-b:20:3";
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    protected GateAgentFixture()
    {
        Requires.Userfaultfd();
        Guest = new TestVmm();
    }

    internal TestVmm Guest { get; }

    internal string Root => _root.FullName;

    /// <summary>This process, as permits name it.</summary>
    internal static string Instance => ProcessIdentity.Of(Environment.ProcessId) is { } self ? VmmInstanceText.Of(self.BootId, self.Pid, self.StartTime) : string.Empty;

    public void Dispose()
    {
        Guest.Dispose();
        _root.Delete(recursive: true);
        GC.SuppressFinalize(this);
    }

    internal async Task<TestChannel> HandOverAsync(TestAgent agent, string state, string? streamTarget = null)
    {
        var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(
            Guest.Message() with { Capabilities = [VmmCapabilities.Barrier, VmmCapabilities.InjectsMachineCheck], State = state, StreamTarget = streamTarget },
            Guest.Userfaultfd.Number, Guest.File.Descriptor.Number);
        return channel;
    }

    internal static async Task<AgentLine> LineAsync(TestChannel channel, params string[] types)
    {
        while (await channel.ReceiveAsync() is { } line)
        {
            if (types.Contains(line.Type))
            {
                return line;
            }
        }

        throw new InvalidOperationException($"the agent closed the channel without {string.Join(" or ", types)}");
    }

    /// <summary>The lines that are left once the agent has closed the channel.</summary>
    internal static async Task<IReadOnlyList<string>> RestAsync(TestChannel channel)
    {
        var lines = new List<string>();
        while (await channel.ReceiveAsync() is { } line)
        {
            lines.Add(line.Type);
        }

        return lines;
    }

    /// <summary>A source whose guest ran under epoch 1 and that is held now, for a switchover to the other host.</summary>
    /// <returns>The channel, and the number of the hold that the guest obeys.</returns>
    internal async Task<(TestChannel Channel, long Hold)> HeldForSwitchoverAsync(TestAgent agent, params PageKey[] pages)
    {
        var channel = await HandOverAsync(agent, VmmStates.Held);
        await LineAsync(channel, AgentLine.Run);
        await agent.Desired.AdoptAsync(Vm(1, 1, Migration(MigrationStates.Switching), pages), TestContext.Current.CancellationToken);
        return (channel, (await LineAsync(channel, AgentLine.Hold)).Sequence);
    }

    internal static Task SealedAsync(TestAgent agent) =>
        TestAgent.UntilAsync(() => agent.Spool.Peek(2000).Any(report => report.Kind == AgentReport.Seal));

    internal static (long Right, long Closed) Record(TestAgent agent)
    {
        var path = Path.Combine(agent.Root, "gate", "vm-1.json");
        var record = System.Text.Json.JsonDocument.Parse(File.ReadAllText(path)).RootElement;
        return (record.GetProperty(nameof(GateRecord.Right)).GetInt64(), record.GetProperty(nameof(GateRecord.Closed)).GetInt64());
    }

    internal DesiredVm Vm(long generation, long epoch, DesiredMigration? migration, params PageKey[] pages) =>
        TestAgent.Vm(Guest, generation, pages) with { PlacementEpoch = epoch, Migration = migration };

    internal DesiredVm Incoming(string state, Permit? permit, long epoch, params PageKey[] pages) =>
        Vm(pages.Length + 1, epoch, new DesiredMigration("m-1", state, "host-b", "host-a", new VmAttach(AttachKinds.Handoff), false, permit), pages)
            with { Owner = permit is null ? "host-b" : "host-a" };

    internal static DesiredMigration Migration(string state) =>
        new("m-1", state, "host-a", "host-b", new VmAttach(AttachKinds.Handoff), false, null);
}
