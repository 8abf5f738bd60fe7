using System.Text.Json.Nodes;
using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Fleet.Linux;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>What an agent makes of a state folder that an older, a newer or a killed agent left, or that a disk damaged.</summary>
[Trait("Invariant", "I6")]
public sealed class StateFolderTests : IDisposable
{
    private readonly DirectoryInfo _root = Directory.CreateTempSubdirectory("fl-");
    private readonly TestVmm _vmm;
    private readonly TestVmm _other;

    public StateFolderTests()
    {
        Requires.Userfaultfd();
        _vmm = new TestVmm();
        _other = new TestVmm(vm: "vm-2");
    }

    /// <summary>The fields that the first journal had: those that came later are optional for ever.</summary>
    [Fact]
    public async Task Upgrade_JournalOfTheFirstVersion_IsTakenOver()
    {
        await LeaveAttachedAsync();
        File.Delete(In("format"));
        Edit("attached", record =>
        {
            var first = new[] { "Vm", "MemoryInstance", "Vmm", "Userfaultfd", "Regions", "Trapped" };
            record.Where(field => !first.Contains(field.Key)).Select(field => field.Key).ToList().ForEach(field => record.Remove(field));
        });
        Lose(_vmm);

        await using var agent = await TestAgent.StartAsync(_root.FullName);

        await TestAgent.UntilAsync(() => _vmm.HasMarker(5) && _other.HasMarker(5));
        Assert.NotNull(agent.Table.Find("vm-1")?.Attachment);
        Assert.StartsWith("1 ", await File.ReadAllTextAsync(In("format"), TestContext.Current.CancellationToken), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Downgrade_SameFormatWithFieldsThatAreNotKnown_IsTakenOver()
    {
        await LeaveAttachedAsync();
        Edit("attached", record => record["Invented"] = new JsonObject { ["later"] = 1 });
        Lose(_vmm);

        await using var agent = await TestAgent.StartAsync(_root.FullName);

        await TestAgent.UntilAsync(() => _vmm.HasMarker(5));
    }

    [Theory]
    [InlineData("2 9.9.9", "newer agent")]
    [InlineData("garbage", "damaged")]
    public async Task Downgrade_NewerFormat_RefusesAndTouchesNothing(string format, string reason)
    {
        await LeaveAttachedAsync();
        await File.WriteAllTextAsync(In("format"), format, TestContext.Current.CancellationToken);
        await File.WriteAllTextAsync(In("attached/vm-1.json.tmp"), "of the newer agent", TestContext.Current.CancellationToken);
        var before = Content();

        var refusal = Assert.Throws<InvalidDataException>(Open);

        Assert.Contains(reason, refusal.Message, StringComparison.Ordinal);
        Assert.Equal(before, Content());
        Assert.Equal(Errno.EFAULT, _vmm.Read(5).Error);
        // The refusal lets go of the lock.
        await File.WriteAllTextAsync(In("format"), "1", TestContext.Current.CancellationToken);
        Open().Dispose();
    }

    [Theory]
    [InlineData("")]
    [InlineData("{")]
    [InlineData("{}")]
    [InlineData("null")]
    public async Task Journal_DamagedForOneVm_KeepsThatVmUnboundAndTakesTheOthersOver(string content)
    {
        await LeaveAttachedAsync();
        await File.WriteAllTextAsync(In("attached/vm-1.json"), content, TestContext.Current.CancellationToken);
        Lose(_other);

        await using var agent = await TestAgent.StartAsync(_root.FullName);
        await TestAgent.UntilAsync(() => _other.HasMarker(5));
        using var channel = await agent.ConnectAsync("vm-1");
        channel.SendHandoff(_vmm.Message(), _vmm.Userfaultfd.Number, _vmm.File.Descriptor.Number);

        // Which memory instance the process holds is not known any more: binding it anew could arm and clear the wrong set.
        Assert.Null(await channel.ReceiveAsync());
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
        Assert.Equal(Errno.EFAULT, _vmm.Read(5).Error);
        Assert.Equal(content, await File.ReadAllTextAsync(In("attached/vm-1.json"), TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task DesiredState_DamagedForOneVm_DisarmsNothingAndKeepsTheOthersEnforced()
    {
        await LeaveAttachedAsync();
        await File.WriteAllTextAsync(In("desired/vm-1.json"), "{", TestContext.Current.CancellationToken);
        Lose(_other);

        await using var agent = await TestAgent.StartAsync(_root.FullName);

        await TestAgent.UntilAsync(() => _other.HasMarker(5));
        Assert.True(_vmm.HasMarker(5));
        // What the control plane tells again is taken.
        await agent.AdoptAndWaitAsync(TestAgent.Vm(_vmm, 2, new PageKey(5, 12), new PageKey(6, 12)));
    }

    /// <summary>The pid lives and is another process's: nothing is borrowed from it, nothing armed in it.</summary>
    [Fact]
    public async Task Takeover_PidOfAnotherProcessByNow_IsDroppedUntouched()
    {
        await LeaveAttachedAsync();
        Edit("attached", record => record["Vmm"]!["StartTime"] = record["Vmm"]!["StartTime"]!.GetValue<long>() + 1);
        Lose(_vmm);

        await using var agent = await TestAgent.StartAsync(_root.FullName);

        await TestAgent.UntilAsync(() => _other.HasMarker(5) && !File.Exists(In("attached/vm-1.json")));
        await agent.LookAsync("vm-1");
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
        Assert.False(_vmm.HasMarker(5));
    }

    [Fact]
    public async Task Start_FilesThatAKilledAgentLeftUnfinished_AreRemoved()
    {
        foreach (var folder in new[] { "", "attached", "desired", "spool", "gate" })
        {
            Directory.CreateDirectory(In(folder));
            await File.WriteAllTextAsync(In($"{folder}/x.tmp"), "half", TestContext.Current.CancellationToken);
        }

        Open().Dispose();

        Assert.Empty(_root.EnumerateFiles("*.tmp", SearchOption.AllDirectories));
    }

    /// <summary>Whoever writes state takes an IOException for a disk that fails, and nothing else.</summary>
    [Fact]
    public void DurableFile_WhateverFails_IsAnIoException()
    {
        Directory.CreateDirectory(In("a.tmp"));
        Directory.CreateDirectory(In("b"));

        Assert.Throws<IOException>(() => DurableFile.Write(In("a"), [1]));
        Assert.Throws<IOException>(() => DurableFile.Write(In("b"), [1]));
        Assert.Throws<IOException>(() => DurableFile.Delete(In("b")));
        Assert.ThrowsAny<IOException>(() => DurableFile.Sync(In("missing")));
        // A file system that has no fsync.
        Assert.Throws<IOException>(() => DurableFile.SyncFolder("/proc/self"));
        Assert.False(File.Exists(In("b.tmp")) || File.Exists(In("a")));
    }

    /// <summary>The record is of an older agent, so that it is to be written again, and cannot be.</summary>
    [Fact]
    public async Task Takeover_RecordThatCannotBeWritten_KeepsNoOtherVmFromBeingTakenOver()
    {
        await LeaveAttachedAsync();
        Edit("attached", record => record.Remove("Reported"));
        Directory.CreateDirectory(In("attached/vm-1.json.tmp"));
        Lose(_other);

        await using var agent = await TestAgent.StartAsync(_root.FullName);

        await TestAgent.UntilAsync(() => _other.HasMarker(5));
        Assert.Null(agent.Table.Find("vm-1")!.Attachment);
        Assert.Equal(Errno.EFAULT, _vmm.Read(5).Error);
        Directory.Delete(In("attached/vm-1.json.tmp"));
        using var channel = await agent.AttachAsync(_vmm);
    }

    /// <summary>One of them dead and the others alive would be a part of the agent that is silently off.</summary>
    [Fact]
    public async Task Loops_WhenOneFails_EndTogetherWithItsFailure()
    {
        var ended = 0;
        var failure = await Assert.ThrowsAsync<InvalidOperationException>(() => Loops.RunAsync(
            [ForeverAsync, async token => { await Task.Yield(); throw new InvalidOperationException("this one"); }, ForeverAsync], TestContext.Current.CancellationToken));

        Assert.Equal(("this one", 2), (failure.Message, ended));

        async Task ForeverAsync(CancellationToken token)
        {
            try
            {
                await Task.Delay(Timeout.Infinite, token); // allowed: a loop that never ends
            }
            finally
            {
                Interlocked.Increment(ref ended);
            }
        }
    }

    public void Dispose()
    {
        _vmm.Dispose();
        _other.Dispose();
        _root.Delete(recursive: true);
    }

    private string In(string name) => Path.Combine(_root.FullName, name);

    private StateFolder Open() => new(Microsoft.Extensions.Options.Options.Create(new AgentOptions { StateFolder = _root.FullName }));

    private async Task LeaveAttachedAsync()
    {
        await using var agent = await TestAgent.StartAsync(_root.FullName, TestAgent.Vm(_vmm, 1, new PageKey(5, 12)), TestAgent.Vm(_other, 1, new PageKey(5, 12)));
        using var first = await agent.AttachAsync(_vmm);
        using var second = await agent.AttachAsync(_other);
    }

    private void Edit(string kind, Action<JsonObject> change)
    {
        var record = JsonNode.Parse(File.ReadAllText(In($"{kind}/vm-1.json")))!.AsObject();
        change(record);
        File.WriteAllText(In($"{kind}/vm-1.json"), record.ToJsonString());
    }

    // While no agent ran: the next one shows that it is at work by arming it again.
    private static void Lose(TestVmm vmm)
    {
        vmm.Memory.Advise(5 * TestVmm.PageBytes, TestVmm.PageBytes, Linux.Memory.MemoryAdvice.DontNeed);
        Assert.False(vmm.HasMarker(5));
    }

    private Dictionary<string, string> Content() =>
        _root.EnumerateFiles("*", SearchOption.AllDirectories).ToDictionary(file => file.FullName, file => Convert.ToHexString(File.ReadAllBytes(file.FullName)));
}
