using Fleet.Linux.Hardware;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Tracing;
using Fleet.Tests.Shared;

namespace Fleet.Linux.Tests;

/// <summary>Trace lines as kernels print them, and trace instances on this kernel.</summary>
public sealed class TracingTests
{
    private static readonly TraceEvent UserFault = new("exceptions", "page_fault_user");

    // Printed by a 6.12 and a 6.18 kernel.
    [Theory]
    [InlineData("            init-1       [000] ...1.    35.551265: memory_failure_event: pfn 0x2bd3: recovery action for dirty LRU page: Recovered", 1, "memory_failure_event")]
    [InlineData("       agent [1]-77      [003] d..2. 12345.000001: page_fault_user: address=0x7f1200000000 ip=0x7f12abcd0000 error_code=0x6", 77, "page_fault_user")]
    [InlineData("           <...>-4194303 [127] .....     0.000001: kvm_page_fault: vcpu 0 rip 0xfff0 address 0x0000000002bd3000 error_code 0x100000014", 4194303, "kvm_page_fault")]
    // A process may call itself what it likes.
    [InlineData(" x-1 [0] . 1.0: -9       [001] .....     7.000000: page_fault_user: address=0x1 ip=0x2 error_code=0x4", 9, "page_fault_user")]
    [InlineData(" -1 [0] . 1: e: -9       [001] .....     7.000000: page_fault_user: address=0x1 ip=0x2 error_code=0x4", 9, "page_fault_user")]
    public void Parse_LineOfAnEvent_IsThreadAndEvent(string line, int thread, string name)
    {
        var parsed = TraceLine.Parse(line);
        Assert.Equal((thread, name), (parsed?.ThreadId, parsed?.Event));
        Assert.Equal(0, TraceLine.ParseLost(line));
    }

    [Theory]
    [InlineData("")]
    [InlineData("CPU:2 [LOST 1234 EVENTS]")]
    [InlineData("# tracer: nop")]
    [InlineData("            init-99999999999999999999 [000] ...1.    35.551265: e: f")]
    public void Parse_OtherLine_IsNone(string line) => Assert.Null(TraceLine.Parse(line));

    [Fact]
    public void ParseLost_LineOfLostEvents_IsTheirNumber() => Assert.Equal(1234, TraceLine.ParseLost("CPU:2 [LOST 1234 EVENTS]"));

    // 6.12 on AMD, as printed; Intel's exit qualification; and before 6.2.
    [Theory]
    [InlineData("vcpu 0 rip 0xffffffff81a2b3c4 address 0x0000000002bd3040 error_code 0x100000014", false, 0, 0x2bd3040, PageAccess.Fetch)]
    [InlineData("vcpu 1 rip 0x401136 address 0x0000000002bd3040 error_code 0x100000006", false, 1, 0x2bd3040, PageAccess.Write)]
    [InlineData("vcpu 1 rip 0x401136 address 0x0000000002bd3040 error_code 0x100000004", false, 1, 0x2bd3040, PageAccess.Read)]
    [InlineData("vcpu 3 rip 0x401136 address 0x00000001ffe00000 error_code 0x184", true, 3, 0x1ffe00000, PageAccess.Fetch)]
    [InlineData("vcpu 3 rip 0x401136 address 0x00000001ffe00000 error_code 0x181", true, 3, 0x1ffe00000, PageAccess.Read)]
    [InlineData("vcpu 3 rip 0x401136 address 0x00000001ffe00000 error_code 0x183", true, 3, 0x1ffe00000, PageAccess.Write)]
    [InlineData("address 2bd3040 error_code 6", false, null, 0x2bd3040, PageAccess.Write)]
    public void KvmPageFault_Fields_AreVcpuAddressAndKind_AndNotTheGuestsRip(string fields, bool isIntel, int? vcpu, ulong address, PageAccess access)
    {
        var parsed = KvmPageFaultEvent.Parse(fields)!;
        Assert.Equal((vcpu, address, access), (parsed.Vcpu, parsed.Address, parsed.Access(isIntel)));
        Assert.DoesNotContain("401136", parsed.ToString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("address=0x7f1200000018 ip=0x7f12abcd0000 error_code=0x6", 0x7f1200000018, PageAccess.Write)]
    [InlineData("address=0x7f1200000018 ip=main+0x10/0x20 error_code=0x14", 0x7f1200000018, PageAccess.Fetch)]
    [InlineData("address=0x7f1200000018 ip=0x7f12abcd0000 error_code=0x4", 0x7f1200000018, PageAccess.Read)]
    public void UserPageFault_Fields_AreAddressAndKind(string fields, ulong address, PageAccess access)
    {
        var parsed = UserPageFaultEvent.Parse(fields)!;
        Assert.Equal((address, access), (parsed.Address, parsed.Access));
        Assert.Null(UserPageFaultEvent.Parse("address=(null) ip=0x1 error_code=0x4"));
    }

    [Fact]
    public void MemoryFailure_Fields_AreFrameTypeAndResult()
    {
        Assert.Equal(
            new MemoryFailureEvent(0x2bd3f, "huge page", "Recovered"), MemoryFailureEvent.Parse("pfn:0x2bd3f recovery action for huge page: Recovered"));
        // As 6.12 prints it.
        Assert.Equal(
            new MemoryFailureEvent(0x5019, "dirty LRU page", "Recovered"), MemoryFailureEvent.Parse("pfn 0x5019: recovery action for dirty LRU page: Recovered"));
        Assert.Null(MemoryFailureEvent.Parse("pfn:zz recovery action for huge page: Recovered"));
    }

    [Fact]
    public void MemoryController_Fields_AreLabelAddressAndGrain()
    {
        var parsed = MemoryControllerEvent.Parse(
            "2 Uncorrected errors: memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (mc:0 location:1:0:-1 address:0x12345fc0 grain:32 syndrome:0x0 - err_code:0101:0091)");
        Assert.Equal(new MemoryControllerEvent("CPU_SrcID#0_Ha#0_Chan#1_DIMM#0", 0x12345fc0, 32), parsed);
        Assert.True(parsed!.Names(0x12345));
        Assert.False(parsed.Names(0x12346));
        Assert.False((parsed with { Grain = 8192 }).Names(0x12345));
    }

    [Fact]
    public void Smbios_EmptySlotsAndTornTables_AreNoModules()
    {
        byte[] slot = [17, 0x1b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 9, (byte)'A', 0, (byte)'S', 0, 0];
        byte[] empty = [.. slot];
        empty[0x0d] = 0;
        Assert.Equal([new SmbiosModule("A", null, null, "S", null)], SmbiosModules.Parse([.. empty, .. slot, 127, 4, 0, 0, 0, 0, .. slot]));
        for (var length = 0; length < slot.Length; length++)
        {
            Assert.Empty(SmbiosModules.Parse(slot.AsSpan(0, length)));
        }
    }

    /// <summary>The event comes from a fault of this very thread, filtered in the kernel to one page of this process.</summary>
    [Fact]
    public void Instance_FilterOnOnePage_RecordsItsFaultsAndNoOthers()
    {
        using var fs = Requires.TraceFs(UserFault);
        using var signal = new EventSignal();
        using var memory = SmallPages(16);
        using var instance = fs.Create("fleet-test", "unit");
        instance.SetBufferSize(16);
        instance.WakeAtOnce();
        using var pipe = instance.OpenPipe();
        Assert.Empty(pipe.ReadLines());
        instance.Enable(UserFault, $"address >= 0x{memory.Address + 8192:x} && address < 0x{memory.Address + 12288:x}");

        Touch(memory.Address + 4096);
        Touch(memory.Address + 8192 + 24);
        Touch(memory.Address + 12288);

        Assert.True(pipe.Wait(signal));
        var line = Assert.Single(pipe.ReadLines().Select(TraceLine.Parse));
        Assert.StartsWith($"address=0x{memory.Address + 8192 + 24:x} ", line!.Fields, StringComparison.Ordinal);
        Assert.Equal(Environment.ProcessId, ThreadGroups.Of(line.ThreadId));
        Assert.Equal(new TraceCounts(1, 0), instance.Count());

        // A new filter takes the place of the one before.
        instance.Enable(UserFault, $"address >= 0x{memory.Address + 20480:x} && address < 0x{memory.Address + 24576:x}");
        Touch(memory.Address + 16384);
        Touch(memory.Address + 20480);
        Assert.Single(pipe.ReadLines());
        signal.Set();
        Assert.False(pipe.Wait(signal));
    }

    [Fact]
    public void Enable_FilterThatTheKernelRefuses_RecordsNothing()
    {
        using var fs = Requires.TraceFs(UserFault);
        using var memory = MemoryMapping.MapAnonymous(4096);
        using var instance = fs.Create("fleet-test", "unit");
        using var pipe = instance.OpenPipe();
        instance.Enable(UserFault, "address < 4096");
        Assert.Throws<LinuxException>(() => instance.Enable(UserFault, "address >= nonsense"));
        // The kernel had no filter for the moment between the two writes.
        pipe.ReadLines(int.MaxValue);
        Touch(memory.Address);
        Assert.Empty(pipe.ReadLines());
    }

    [Fact]
    public void Count_BufferThatOverflows_SaysHowManyAreLost()
    {
        using var fs = Requires.TraceFs(UserFault);
        const int Pages = 4000;
        using var memory = SmallPages(Pages);
        using var instance = fs.Create("fleet-test", "unit");
        instance.SetBufferSize(4);
        using var pipe = instance.OpenPipe();
        instance.Enable(UserFault, $"address >= 0x{memory.Address:x} && address < 0x{memory.Address + (Pages * 4096):x}");
        for (var page = 0; page < Pages; page++)
        {
            Touch(memory.Address + ((ulong)page * 4096));
        }

        var lines = pipe.ReadLines(int.MaxValue);
        var counts = instance.Count();
        Assert.Equal(Pages, counts.Recorded);
        Assert.Equal(counts.Lost, Pages - lines.Count(line => TraceLine.Parse(line) is not null));
        Assert.True(counts.Lost > 0, "the buffer was to overflow");
        Assert.Equal(counts.Lost, lines.Sum(TraceLine.ParseLost));
    }

    [Fact]
    public void Instance_Disposed_IsGone_AndOnlyOthersLeftoversAreRemoved()
    {
        using var fs = Requires.TraceFs(UserFault);
        // What a run that failed left here must not fail this one.
        fs.RemoveLeftovers("fleet-test-1");
        using var instance = fs.Create("fleet-test-1", "unit");
        Assert.Contains(instance.Name, fs.InstanceNames());
        Assert.Empty(fs.RemoveLeftovers("fleet-test-1"));
        Assert.Empty(fs.RemoveLeftovers("fleet-test"));
        var dead = instance.Name.Replace($"-{Environment.ProcessId}-", $"-{Environment.ProcessId}-1", StringComparison.Ordinal);
        using (var left = fs.CreateNamed(dead))
        {
            Assert.Equal([dead], fs.RemoveLeftovers("fleet-test-1"));
            Assert.DoesNotContain(dead, fs.InstanceNames());
        }

        instance.Dispose();
        Assert.DoesNotContain(instance.Name, fs.InstanceNames());
    }

    // A page of 2 MiB would take the faults of 512 with its first, where transparent huge pages are always on.
    private static MemoryMapping SmallPages(int pages)
    {
        var memory = MemoryMapping.MapAnonymous(pages * 4096);
        memory.Advise(0, pages * 4096, MemoryAdvice.NoHugePage);
        return memory;
    }

    // Through a pointer: a system call's fault is none of user mode's. The page is healthy.
    private static unsafe void Touch(ulong address) => Volatile.Write(ref *(byte*)address, 1);
}
