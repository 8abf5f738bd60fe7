namespace Fleet.Data.Writing;

/// <summary>A command in the writer's queue. It is either taken by a batch or cancelled, never both.</summary>
internal abstract class WriteCommand
{
    private const int Queued = 0;
    private const int Taken = 1;
    private const int Cancelled = 2;
    private int _state;

    public bool TryTake() => Interlocked.CompareExchange(ref _state, Taken, Queued) == Queued;

    public bool TryCancel() => Interlocked.CompareExchange(ref _state, Cancelled, Queued) == Queued;

    /// <summary>Runs the command; false when it refused and must be undone.</summary>
    public abstract Task<bool> ApplyAsync(WriteScope scope);

    /// <summary>Answers the caller; only after the commit.</summary>
    public abstract void Complete();

    public abstract void Fail(Exception exception);
}

internal sealed class WriteCommand<T>(Func<WriteScope, Task<T>> apply) : WriteCommand
{
    private readonly TaskCompletionSource<T> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private T? _result;

    public Task<T> Completion => _completion.Task;

    public override async Task<bool> ApplyAsync(WriteScope scope)
    {
        _result = await apply(scope);
        return _result is not IRefusal { IsRefused: true };
    }

    public override void Complete() => _completion.TrySetResult(_result!);

    public override void Fail(Exception exception) => _completion.TrySetException(exception);

    public void Cancel(CancellationToken cancellationToken)
    {
        if (TryCancel())
        {
            _completion.TrySetCanceled(cancellationToken);
        }
    }
}
