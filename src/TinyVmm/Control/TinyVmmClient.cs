using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Fleet.Contracts;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Control;

/// <summary>
/// Talks to a VMM's control socket. Every method throws <see cref="ControlException"/> when the VMM refuses, and
/// <see cref="IOException"/> when it goes away. Calls of one client are answered one after the other.
/// </summary>
public sealed class TinyVmmClient : IAsyncDisposable
{
    private readonly NetworkStream _stream;
    private readonly LineReader _lines;
    private readonly SemaphoreSlim _turn = new(1);

    private TinyVmmClient(Socket socket)
    {
        _stream = new NetworkStream(socket, ownsSocket: true);
        _lines = new LineReader(_stream, ControlServer.MaximumLineBytes);
    }

    /// <exception cref="SocketException">Nobody listens there (yet).</exception>
    public static async Task<TinyVmmClient> ConnectAsync(string path, CancellationToken cancellationToken = default)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
            return new TinyVmmClient(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Over a connection that already leads to the control socket, such as one from another machine; it is the client's to close.</summary>
    public static TinyVmmClient Over(Socket connected) => new(connected);

    public Task<StatusAnswer> StatusAsync(CancellationToken cancellationToken = default) =>
        SendAsync(new ControlRequest("status"), ControlJson.Default.StatusAnswer, cancellationToken);

    /// <summary>The guest writes a pattern that depends on address and seed.</summary>
    public Task<CommandAnswer> WriteAsync(ulong guestPhysicalAddress, long bytes, uint seed, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("write", Hex(guestPhysicalAddress), bytes, seed), cancellationToken);

    /// <summary>The guest reads one dword.</summary>
    public Task<CommandAnswer> ReadAsync(ulong guestPhysicalAddress, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("read", Hex(guestPhysicalAddress)), cancellationToken);

    /// <summary>The guest writes one dword.</summary>
    public Task<CommandAnswer> StoreAsync(ulong guestPhysicalAddress, uint value, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("store", Hex(guestPhysicalAddress), Value: Hex(value)), cancellationToken);

    /// <summary>The guest reads a range and computes its checksum.</summary>
    public Task<CommandAnswer> ChecksumAsync(ulong guestPhysicalAddress, long bytes, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("checksum", Hex(guestPhysicalAddress), bytes), cancellationToken);

    /// <summary>Returns once the vCPU is verifiably out of the guest.</summary>
    public Task PauseAsync(CancellationToken cancellationToken = default) => CommandAsync(new ControlRequest("pause"), cancellationToken);

    public Task ResumeAsync(CancellationToken cancellationToken = default) => CommandAsync(new ControlRequest("resume"), cancellationToken);

    /// <summary>Has the VMM report a failed page to the agent, as if the host's kernel had told it.</summary>
    public Task MemoryErrorAsync(ulong guestPhysicalAddress, int shift, string errorClass, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("memory-error", Hex(guestPhysicalAddress), Shift: shift, Class: errorClass), cancellationToken);

    /// <summary>Punches a hole into the backing memory, as a balloon does.</summary>
    public Task DiscardAsync(ulong guestPhysicalAddress, long bytes, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("discard", Hex(guestPhysicalAddress), bytes), cancellationToken);

    /// <summary>Takes pages out of the VMM's page table (MADV_DONTNEED); the backing memory keeps them, poison markers are lost.</summary>
    public Task UnmapAsync(ulong guestPhysicalAddress, long bytes, CancellationToken cancellationToken = default) =>
        CommandAsync(new ControlRequest("unmap", Hex(guestPhysicalAddress), bytes), cancellationToken);

    /// <summary>Pauses the guest and streams it to the VMM that waits at the endpoint; returns once that one has confirmed all of it.</summary>
    /// <param name="to"><c>unix:/path</c>, or <c>tcp:127.0.0.1:port</c>.</param>
    public Task<MigrateAnswer> MigrateOutAsync(string to, CancellationToken cancellationToken = default) =>
        SendAsync(new ControlRequest("migrate-out", To: to), ControlJson.Default.MigrateAnswer, cancellationToken);

    public async ValueTask DisposeAsync()
    {
        await _lines.DisposeAsync();
        await _stream.DisposeAsync();
        _turn.Dispose();
    }

    private static string Hex(ulong value) => HexAddress.Format(value);

    private Task<CommandAnswer> CommandAsync(ControlRequest request, CancellationToken cancellationToken) =>
        SendAsync(request, ControlJson.Default.CommandAnswer, cancellationToken);

    private async Task<T> SendAsync<T>(ControlRequest request, JsonTypeInfo<T> type, CancellationToken cancellationToken)
        where T : ControlAnswer
    {
        await _turn.WaitAsync(cancellationToken);
        try
        {
            await _stream.WriteAsync(JsonLine.Encode(request, ControlJson.Default.ControlRequest), cancellationToken);
            var line = await _lines.ReadAsync(cancellationToken) ?? throw new IOException("the VMM closed its control socket");
            var answer = JsonSerializer.Deserialize(line, ControlJson.Default.ControlAnswer);
            return answer is { Ok: true }
                ? JsonSerializer.Deserialize(line, type)!
                : throw new ControlException(answer?.Code ?? ControlException.BadJson, answer?.Error ?? "no answer");
        }
        finally
        {
            _turn.Release();
        }
    }
}
