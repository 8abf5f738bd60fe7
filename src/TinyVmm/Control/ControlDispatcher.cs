using System.Text.Json;
using Fleet.Contracts;
using Fleet.Linux;
using Fleet.TinyVmm.Guest;
using Fleet.TinyVmm.Migration;
using Fleet.TinyVmm.Vcpu;
using Fleet.TinyVmm.Wire;

namespace Fleet.TinyVmm.Control;

/// <summary>Turns one line into one answer. Never throws for what the line holds.</summary>
internal sealed class ControlDispatcher(Machine machine, TimeSpan commandTimeout, TimeProvider time) : IDisposable
{
    private readonly ControlParser _parser = new(machine.Memory);

    // The guest does one thing at a time.
    private readonly SemaphoreSlim _guest = new(1);

    public async Task<byte[]> AnswerAsync(byte[] line, CancellationToken cancellationToken)
    {
        try
        {
            return await AnswerAsync(Parse(line), cancellationToken);
        }
        catch (ControlException exception)
        {
            return Refuse(exception.Code, exception.Message);
        }
        catch (TimeoutException)
        {
            return Refuse(ControlException.TimedOut, $"no answer within {commandTimeout}: the vCPU may be blocked on a trapped page");
        }
        catch (LinuxException exception)
        {
            return Refuse(ControlException.HostError, exception.Message);
        }
    }

    public static byte[] Refuse(string code, string error) =>
        JsonLine.Encode(new ControlAnswer(false, code, error), ControlJson.Default.ControlAnswer);

    public void Dispose() => _guest.Dispose();

    private static ControlRequest Parse(byte[] line)
    {
        try
        {
            return JsonSerializer.Deserialize(line, ControlJson.Default.ControlRequest)
                ?? throw new ControlException(ControlException.BadJson, "null is no request");
        }
        catch (JsonException exception)
        {
            throw new ControlException(ControlException.BadJson, exception.Message);
        }
    }

    private Task<byte[]> AnswerAsync(ControlRequest request, CancellationToken cancellationToken) => request.Op switch
    {
        "status" => Task.FromResult(JsonLine.Encode(machine.Status(), ControlJson.Default.StatusAnswer)),
        "read" => RunAsync(_parser.Command(request, GuestOperation.Load), cancellationToken),
        "store" => RunAsync(_parser.Command(request, GuestOperation.Store), cancellationToken),
        "write" => RunAsync(_parser.Command(request, GuestOperation.Fill), cancellationToken),
        "checksum" => RunAsync(_parser.Command(request, GuestOperation.Checksum), cancellationToken),
        "pause" => PauseAsync(cancellationToken),
        "resume" => Task.FromResult(Resume()),
        "memory-error" => Task.FromResult(MemoryError(request)),
        "migrate-out" => MigrateOutAsync(request, cancellationToken),
        "discard" => Task.FromResult(Discard(request)),
        "unmap" => Task.FromResult(Unmap(request)),
        _ => throw new ControlException(ControlException.UnknownOp, "no such op"),
    };

    private async Task<byte[]> RunAsync(GuestCommand command, CancellationToken cancellationToken)
    {
        var start = time.GetTimestamp();
        if (!await _guest.WaitAsync(commandTimeout, cancellationToken))
        {
            throw new TimeoutException();
        }

        Task<GuestOutcome> running;
        try
        {
            machine.Run.RefuseUnlessRunning();

            // A command that came in with a stream is still the guest's to finish.
            await machine.Carried.WaitAsync(commandTimeout, time, cancellationToken);
            running = machine.Vcpu.ExecuteAsync(command);
        }
        catch
        {
            _guest.Release();
            throw;
        }

        // The turn ends with the guest, not with the caller's patience: a blocked command is still under way.
        var answered = ReleaseAfterAsync(running);
        var left = commandTimeout - time.GetElapsedTime(start);
        return Encode(command.Operation, await answered.WaitAsync(left > TimeSpan.Zero ? left : TimeSpan.Zero, time, cancellationToken));
    }

    private async Task<GuestOutcome> ReleaseAfterAsync(Task<GuestOutcome> running)
    {
        try
        {
            return await running;
        }
        finally
        {
            _guest.Release();
        }
    }

    private static byte[] Encode(GuestOperation operation, GuestOutcome outcome)
    {
        var answer = outcome switch
        {
            GuestOutcome.Completed(var value) => operation switch
            {
                GuestOperation.Load => new CommandAnswer(CommandAnswer.Data, Value: HexAddress.Format(value)),
                GuestOperation.Checksum => new CommandAnswer(CommandAnswer.Data, Checksum: HexAddress.Format(value)),
                _ => new CommandAnswer(CommandAnswer.Done),
            },
            GuestOutcome.MachineCheck(var report) => new CommandAnswer(
                CommandAnswer.MachineCheck,
                McgStatus: HexAddress.Format(report.McgStatus),
                Status: HexAddress.Format(report.Status),
                Address: HexAddress.Format(report.Address),
                Misc: HexAddress.Format(report.Misc)),
            GuestOutcome.Failed(var reason) => throw new ControlException(ControlException.Failed, reason),
            _ => throw new ControlException(ControlException.Failed, "unknown outcome"),
        };
        return JsonLine.Encode(answer, ControlJson.Default.CommandAnswer);
    }

    private async Task<byte[]> PauseAsync(CancellationToken cancellationToken)
    {
        await machine.Run.PauseAsync().WaitAsync(commandTimeout, time, cancellationToken);
        return machine.Vcpu.Failure is { } failure ? throw new ControlException(ControlException.Failed, failure) : Done();
    }

    private byte[] Resume()
    {
        machine.Run.Resume();
        return machine.Vcpu.Failure is { } failure ? throw new ControlException(ControlException.Failed, failure) : Done();
    }

    private byte[] MemoryError(ControlRequest request)
    {
        var (address, shift, errorClass) = _parser.MemoryError(request);
        machine.Events.AddPoison(address, shift, errorClass);
        return Done();
    }

    private byte[] Discard(ControlRequest request)
    {
        var (address, bytes) = _parser.Pages(request);
        machine.Run.RefuseWhileRamMoves();
        machine.Memory.Find(address, bytes)!.Discard(address, bytes);
        return Done();
    }

    private byte[] Unmap(ControlRequest request)
    {
        var (address, bytes) = _parser.Pages(request);
        machine.Run.RefuseWhileRamMoves();
        machine.Memory.Find(address, bytes)!.ZapDontNeed(address, bytes);
        return Done();
    }

    private async Task<byte[]> MigrateOutAsync(ControlRequest request, CancellationToken cancellationToken)
    {
        if (!MigrationEndpoint.TryParse(request.To, out var endpoint))
        {
            throw new ControlException(ControlException.BadRequest, "to must be unix:/path or tcp:127.0.0.1:port");
        }

        return JsonLine.Encode(new MigrateAnswer(await machine.MigrateOutAsync(endpoint, cancellationToken)), ControlJson.Default.MigrateAnswer);
    }

    private static byte[] Done() => JsonLine.Encode(new CommandAnswer(CommandAnswer.Done), ControlJson.Default.CommandAnswer);
}
