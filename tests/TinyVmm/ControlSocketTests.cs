using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Fleet.TinyVmm.Control;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Tests;

public sealed class ControlSocketTests
{
    private static CancellationToken Cancelled => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Request_HostileLines_AreRefusedOnTheSameConnection()
    {
        await using var vmm = await RunningVmm.StartAsync();
        var (stream, lines) = await ConnectAsync(vmm);
        await using var closing = stream;

        foreach (var (line, code) in ((string, string)[])
        [
            ("", "bad-json"),
            ("nonsense", "bad-json"),
            ("null", "bad-json"),
            ("[]", "bad-json"),
            ("{\"op\":5}", "bad-json"),
            ("{\"op\":\"read\",\"gpa\":1048576}", "bad-json"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":4,\"seed\":-1}", "bad-json"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":1e99,\"seed\":1}", "bad-json"),
            (new string('[', 5000), "bad-json"),
            ("\0\u0001\ufffd", "bad-json"),
            ("{}", "unknown-op"),
            ("{\"op\":\"\"}", "unknown-op"),
            ("{\"op\":\"READ\"}", "unknown-op"),
            ("{\"op\":\"read\"}", "bad-request"),
            ("{\"op\":\"read\",\"gpa\":\"1048576\"}", "bad-request"),
            ("{\"op\":\"read\",\"gpa\":\"0x100001\"}", "bad-request"),
            ("{\"op\":\"read\",\"gpa\":\"0x10000000000000000\"}", "bad-request"),
            ("{\"op\":\"read\",\"gpa\":\"0xfffffffffffffffc\"}", "out-of-range"),
            ("{\"op\":\"read\",\"gpa\":\"0x1000000\"}", "out-of-range"),
            ("{\"op\":\"read\",\"gpa\":\"0xfffc\"}", "reserved"),
            ("{\"op\":\"store\",\"gpa\":\"0x100000\"}", "bad-request"),
            ("{\"op\":\"store\",\"gpa\":\"0x100000\",\"value\":\"0x100000000\"}", "bad-request"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":4}", "bad-request"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":0,\"seed\":1}", "bad-request"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":-4,\"seed\":1}", "bad-request"),
            ("{\"op\":\"write\",\"gpa\":\"0x100000\",\"bytes\":9223372036854775804,\"seed\":1}", "out-of-range"),
            ("{\"op\":\"write\",\"gpa\":\"0xfffff8\",\"bytes\":12,\"seed\":1}", "out-of-range"),
            ("{\"op\":\"checksum\",\"gpa\":\"0x100000\",\"bytes\":6}", "bad-request"),
            ("{\"op\":\"discard\",\"gpa\":\"0x100800\",\"bytes\":4096}", "bad-request"),
            ("{\"op\":\"discard\",\"gpa\":\"0x0\",\"bytes\":4096}", "reserved"),
            ("{\"op\":\"memory-error\",\"gpa\":\"0x100000\",\"shift\":13}", "bad-request"),
            ("{\"op\":\"memory-error\",\"gpa\":\"0x100000\",\"class\":\"big\"}", "bad-request"),
            ("{\"op\":\"memory-error\",\"gpa\":\"0x100000\",\"shift\":30}", "out-of-range"),
        ])
        {
            await stream.WriteAsync(Encoding.UTF8.GetBytes(line + "\n"), Cancelled);
            using var answer = JsonDocument.Parse((await lines.ReadAsync(Cancelled))!);
            Assert.False(answer.RootElement.GetProperty("ok").GetBoolean(), line);
            Assert.Equal((line, code), (line, answer.RootElement.GetProperty("code").GetString()));
        }

        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
        Assert.Equal(0, vmm.Machine.Events.Pending);
    }

    [Fact]
    public async Task Request_LineWithoutEnd_IsRefusedAndTheConnectionCloses()
    {
        await using var vmm = await RunningVmm.StartAsync();
        var (stream, lines) = await ConnectAsync(vmm);
        await using var closing = stream;

        await stream.WriteAsync(new byte[ControlServer.MaximumLineBytes + 1], Cancelled);

        Assert.Contains("bad-json", Encoding.UTF8.GetString((await lines.ReadAsync(Cancelled))!), StringComparison.Ordinal);
        Assert.Null(await lines.ReadAsync(Cancelled));
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
    }

    [Fact]
    public async Task Request_SeveralClientsAtOnce_EachGetsItsOwnAnswers()
    {
        await using var vmm = await RunningVmm.StartAsync();

        await Task.WhenAll(Enumerable.Range(1, 8).Select(async number =>
        {
            await using var client = await TinyVmmClient.ConnectAsync(vmm.ControlPath, Cancelled);
            var gpa = 0x10_0000 + ((ulong)number * 4);
            for (var i = 0; i < 20; i++)
            {
                await client.StoreAsync(gpa, (uint)(number * 1000 + i), Cancelled);
                Assert.Equal((uint)(number * 1000 + i), RunningVmm.Dword((await client.ReadAsync(gpa, Cancelled)).Value));
            }
        }));
    }

    /// <summary>Unlike a discard: the backing memory keeps the page.</summary>
    [Fact]
    public async Task Unmap_OfWrittenPages_LeavesTheirContent()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.WriteAsync(0x10_0000, 8192, 7, Cancelled);
        var before = (await vmm.Client.ChecksumAsync(0x10_0000, 8192, Cancelled)).Checksum;

        await vmm.Client.UnmapAsync(0x10_0000, 4096, Cancelled);

        Assert.Equal(before, (await vmm.Client.ChecksumAsync(0x10_0000, 8192, Cancelled)).Checksum);
        await vmm.Client.DiscardAsync(0x10_0000, 4096, Cancelled);
        Assert.NotEqual(before, (await vmm.Client.ChecksumAsync(0x10_0000, 8192, Cancelled)).Checksum);
    }

    [Fact]
    public async Task MemoryError_OnHealthyRam_QueuesAnEventAndChangesNothingElse()
    {
        await using var vmm = await RunningVmm.StartAsync();
        await vmm.Client.StoreAsync(0x20_0000, 0x55, Cancelled);

        await vmm.Client.MemoryErrorAsync(0x20_0123, 12, "srao", Cancelled);

        Assert.True(vmm.Machine.Events.TryNext(out var queued));
        Assert.Equal(("poison", "0x200000", 12, "srao", 1L), (queued.Type, queued.GuestPhysicalAddress, queued.Shift, queued.Class, queued.Count));
        Assert.Null(queued.Access);
        Assert.Equal("0x55", (await vmm.Client.ReadAsync(0x20_0000, Cancelled)).Value);
        Assert.Equal(0, vmm.Machine.Vcpu.MachineChecks);
    }

    [Fact]
    public async Task Listen_PathOfALivingVmm_IsRefusedAndTheFirstGoesOn()
    {
        await using var vmm = await RunningVmm.StartAsync();

        Assert.Throws<SocketException>(() => new ControlServer(vmm.ControlPath, vmm.Machine, TimeProvider.System));

        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(vmm.ControlPath));
        Assert.Equal("running", (await vmm.Client.StatusAsync(Cancelled)).State);
    }

    private static async Task<(NetworkStream Stream, LineReader Lines)> ConnectAsync(RunningVmm vmm)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(vmm.ControlPath), Cancelled);
        var stream = new NetworkStream(socket, ownsSocket: true);
        return (stream, new LineReader(stream, 1 << 20));
    }
}
