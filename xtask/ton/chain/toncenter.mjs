// The methods of toncenter's HTTP API, version 2, as far as clients of wallets and storage contracts use them: what comes
// in, what goes out, and which number an error has. Values have the forms that toncenter gives them: amounts as decimal
// text, hashes as base64, integers of a stack as hexadecimal text.

import { Address, Cell, TupleBuilder } from '@ton/core';

// An error as the API tells it.
export class Refusal extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

const NO_HASH = Buffer.alloc(32).toString('base64');

export function methods(ledger) {
  const block = () => ({
    '@type': 'ton.blockIdExt', workchain: -1, shard: '-9223372036854775808', seqno: ledger.seqno, root_hash: NO_HASH, file_hash: NO_HASH,
  });
  const information = async params => describe(await ledger.account(address(params.address)), ledger.now, block());

  return {
    getMasterchainInfo: async () => ({ '@type': 'blocks.masterchainInfo', last: block(), state_root_hash: NO_HASH, init: block() }),
    getAddressInformation: information,
    getAddressBalance: async params => (await information(params)).balance,
    getAddressState: async params => (await information(params)).state,
    getWalletInformation: async params => {
      const { balance, state, last_transaction_id } = await information(params);
      const seqno = state === 'active' ? await getSeqno(ledger, address(params.address)) : undefined;
      return { wallet: seqno !== undefined, balance, account_state: state, last_transaction_id, seqno };
    },
    runGetMethod: params => runGetMethod(ledger, params, block()),
    getTransactions: async params => {
      const limit = Math.min(Number(params.limit ?? 10), 100);
      return ledger.transactions(address(params.address)).slice(0, limit).map(transaction);
    },
    sendBoc: async params => { await sendBoc(ledger, params); return { '@type': 'ok' }; },
    sendBocReturnHash: async params => ({ '@type': 'raw.extMessageInfo', hash: base64(await sendBoc(ledger, params)) }),
  };
}

function address(text) {
  try { return Address.parse(String(text)); } catch { throw new Refusal(422, `Incorrect address: ${text}`); }
}

const base64 = cell => cell.hash().toString('base64');

function describe(contract, now, block) {
  const state = contract.accountState;
  const init = state?.type === 'active' ? state.state : undefined;
  const boc = cell => (cell ? cell.toBoc().toString('base64') : '');
  const hash = contract.lastTransactionHash;
  return {
    '@type': 'raw.fullAccountState', balance: contract.balance.toString(), code: boc(init?.code), data: boc(init?.data),
    last_transaction_id: {
      '@type': 'internal.transactionId', lt: contract.lastTransactionLt.toString(),
      hash: hash ? Buffer.from(hash.toString(16).padStart(64, '0'), 'hex').toString('base64') : NO_HASH,
    },
    block_id: block, frozen_hash: '', sync_utime: now,
    state: { active: 'active', frozen: 'frozen' }[state?.type] ?? 'uninitialized',
  };
}

async function getSeqno(ledger, at) {
  try { return Number((await ledger.getMethod(at, 'seqno', [])).stackReader.readBigNumber()); } catch { return undefined; }
}

async function runGetMethod(ledger, params, block) {
  const at = address(params.address);
  const input = readStack(params.stack ?? []);
  const answer = (gas, stack, code) => ({ '@type': 'smc.runResult', gas_used: gas, stack, exit_code: code, block_id: block });
  try {
    const run = await ledger.getMethod(at, params.method, input);
    return answer(Number(run.gasUsed), run.stack.map(writeEntry), 0);
  } catch (error) {
    // What the code ended with is a result; -13 stands for an account without code.
    return answer(0, [], error.exitCode ?? -13);
  }
}

function readStack(stack) {
  const builder = new TupleBuilder();
  for (const entry of stack) {
    const [kind, value] = Array.isArray(entry) ? entry : [entry.type, entry.value];
    if (kind === 'num' || kind === 'int') builder.writeNumber(BigInt(value));
    else if (/cell$/i.test(kind)) builder.writeCell(Cell.fromBase64(value.bytes ?? value));
    else if (/slice$/i.test(kind)) builder.writeSlice(Cell.fromBase64(value.bytes ?? value).beginParse());
    else throw new Refusal(422, `Unsupported stack entry ${kind}`);
  }
  return builder.build();
}

function writeEntry(entry) {
  const cell = value => ['cell', { bytes: value.toBoc().toString('base64') }];
  switch (entry.type) {
    case 'int': return ['num', (entry.value < 0n ? '-0x' : '0x') + (entry.value < 0n ? -entry.value : entry.value).toString(16)];
    case 'cell': case 'slice': return cell(entry.cell);
    case 'tuple': return ['tuple', { '@type': 'tvm.tuple', elements: entry.items.map(writeEntry) }];
    default: return [entry.type, null];
  }
}

function transaction(one) {
  // From the transaction itself: serialised anew, a message may be laid out otherwise and have another hash.
  const messages = one.raw.refs[0].beginParse();
  const incoming = messages.loadBit() ? messages.loadRef() : undefined;
  return {
    '@type': 'raw.transaction', utime: one.now, fee: one.totalFees.coins.toString(),
    transaction_id: { '@type': 'internal.transactionId', lt: one.lt.toString(), hash: one.hash().toString('base64') },
    in_msg: one.inMessage ? message(one.inMessage, incoming) : undefined,
    out_msgs: one.outMessages.values().map(sent => message(sent)),
  };
}

function message({ info, body }, cell) {
  return {
    '@type': 'raw.message', source: info.src?.toString() ?? '', destination: info.dest?.toString() ?? '',
    value: (info.value?.coins ?? 0n).toString(), created_lt: (info.createdLt ?? 0n).toString(), body_hash: base64(body),
    ...(cell ? { hash: base64(cell) } : {}),
    msg_data: { '@type': 'msg.dataRaw', body: body.toBoc().toString('base64'), init_state: '' },
  };
}

async function sendBoc(ledger, { boc }) {
  let cell;
  try { cell = Cell.fromBase64(String(boc)); } catch { throw new Refusal(500, 'LITE_SERVER_UNKNOWN: cannot deserialize bag-of-cells'); }
  try { await ledger.submit(cell); } catch (error) {
    const why = String(error.message).split('\n').slice(0, 2).join(' ');
    throw new Refusal(500, `LITE_SERVER_UNKNOWN: cannot apply external message to current state : ${why}`);
  }
  return cell;
}
