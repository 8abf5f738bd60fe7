using System.Net.Sockets;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.Contracts.Handoff;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Observe;
using Fleet.HostAgent.Reconcile;
using Fleet.Tests.Shared;
using Microsoft.Extensions.DependencyInjection;

namespace Fleet.HostAgent.Tests;

public sealed class VmmEventPumpTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");

    /// <summary>A VMM that connects again sends again what it has no acknowledgement for; the pump of its old connection may have those events in hand.</summary>
    [Fact]
    [Trait("Invariant", "I5")]
    public async Task SameEventsOnTwoConnections_WhileTheVmIsLookedAt_AreStoredOnce()
    {
        Requires.Userfaultfd();
        using var vmm = new TestVmm();
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(vmm, 1, new PageKey(5, 12)));
        using var channel = await agent.AttachAsync(vmm);
        channel.SendEvent(Hit(1));
        Assert.Equal(AgentLine.Acknowledged, (await channel.ReceiveAsync())?.Type);
        var entry = agent.Table.Find("vm-1")!;
        // Nobody is at its other end: what is stored counts, not what is acknowledged.
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        using var writer = new AgentLineWriter(socket);
        var pumps = new List<Task>();

        await entry.Gate.WaitAsync(TestContext.Current.CancellationToken);
        foreach (var last in new[] { 3, 4 })
        {
            var pump = Pump(agent, entry, writer);
            for (var sequence = 2; sequence <= last; sequence++)
            {
                await pump.PostAsync(Hit(sequence), TestContext.Current.CancellationToken);
            }

            // It comes as far as the gate before it gives control back.
            pumps.Add(pump.RunAsync(TestContext.Current.CancellationToken));
            pump.Complete();
        }

        entry.Gate.Release();
        await Task.WhenAll(pumps).WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);

        Assert.Equal((4, 4), (agent.Spool.Peek(100).Where(report => report.Kind == AgentReport.Hit).Sum(report => report.Count), agent.Spool.LastEvent(entry.Attachment!.Vmm)));
    }

    public void Dispose() => _root.Delete(recursive: true);

    private static VmmEventPump Pump(TestAgent agent, VmEntry entry, AgentLineWriter writer) =>
        ActivatorUtilities.CreateInstance<VmmEventPump>(agent.Services, entry, entry.Attachment!, writer);

    private static VmmEvent Hit(long sequence) =>
        new(VmmEvent.MceInjected, sequence, HexAddress.Format(FrameMath.AddressOf(5)), null, null, "read", 0, 1, DateTimeOffset.UnixEpoch);
}
